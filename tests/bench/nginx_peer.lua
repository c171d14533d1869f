-- Runs in nginx's workers for dict_peer_nginx.cc: fills a zone, or does one operation many times between two readings of the clock.
--   ?do=fill&keys=K              fills the zone of that size and tells the bytes of one entry
--   ?do=get|set|incr&keys=K&n=N&gate=ID&parties=P
--                                waits until P requests with that ID run, each in a worker of its own, and tells begin and end
local GATE_SECONDS = 5
local DRAWS = 1048576
local ORDER_STEP = 4099
local band = bit.band  -- Cheaper than a remainder.

local arg = ngx.req.get_uri_args()
local keys, n = tonumber(arg.keys), tonumber(arg.n)
local zone = ngx.shared["keys_" .. arg.keys]
local value = string.rep("v", tonumber(arg.bytes))

if arg["do"] == "fill" then
  local before = zone:free_space()
  for i = 0, keys - 1 do
    local stored, problem, evicted = zone:set(string.format("key:%08x", i), value)
    if not stored or evicted then return ngx.say("failed: ", problem) end
  end
  return ngx.say((before - zone:free_space()) / keys)
end

-- The keys are made before the clock runs, once in each worker.
drawn_names = drawn_names or {}
local names = drawn_names[keys]
if names == nil then
  names = {}
  for i = 1, DRAWS do names[i] = string.format("key:%08x", math.random(0, keys - 1)) end
  drawn_names[keys] = names
end
local first = ngx.worker.id() * ORDER_STEP

local loops = {}
function loops.get(count)
  for i = 1, count do
    if zone:get(names[band(first + i, DRAWS - 1) + 1]) == nil then error("a key is missing") end
  end
end
function loops.set(count)
  for i = 1, count do zone:set(names[band(first + i, DRAWS - 1) + 1], value) end
end
function loops.incr(count)
  for i = 1, count do zone:incr("hits", 1, 0) end
end
local loop = loops[arg["do"]]
loop(math.floor(n / 8) + 1)

local gate = ngx.shared.gate
gate:incr(arg.gate, 1, 0)
ngx.update_time()
local deadline = ngx.now() + GATE_SECONDS
while gate:get(arg.gate) < tonumber(arg.parties) do
  ngx.update_time()
  if ngx.now() > deadline then return ngx.say("alone") end
end
ngx.update_time()
local begin = ngx.now()
loop(n)
ngx.update_time()
ngx.say(string.format("%.3f %.3f", begin, ngx.now()))
