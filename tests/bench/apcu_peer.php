<?php
// Serves dict_peer_apcu.cc on a unix socket: fills an APCu cache, then does one operation many times, in forked children of this
// process, because that is how processes share one cache.
//   php apcu_peer.php SOCKET KEYS VALUE_BYTES
// A connection sends "OPERATION PROCESSES N" and reads the nanoseconds that passed for one operation of one process.
const DRAWS = 1048576;
const ORDER_STEP = 4099;

if (!function_exists('apcu_store') || !function_exists('pcntl_fork') || !apcu_enabled()) {
    exit(3);
}
[, $socket, $keys, $bytes] = $argv;
$keys = (int) $keys;
$value = str_repeat('v', (int) $bytes);

$before = apcu_sma_info(true)['avail_mem'];
for ($i = 0; $i < $keys; $i++) {
    if (!apcu_store(sprintf('key:%08x', $i), $value)) {
        exit(4);
    }
}
$entry_bytes = ($before - apcu_sma_info(true)['avail_mem']) / $keys;
mt_srand($keys);
$names = new SplFixedArray(DRAWS);
for ($i = 0; $i < DRAWS; $i++) {
    $names[$i] = sprintf('key:%08x', mt_rand(0, $keys - 1));
}

function run(string $operation, SplFixedArray $names, string $value, int $first, int $n): void
{
    if ($operation === 'get') {
        for ($i = 0; $i < $n; $i++) {
            if (apcu_fetch($names[($first + $i) % DRAWS]) === false) {
                exit(1);
            }
        }
    } elseif ($operation === 'set') {
        for ($i = 0; $i < $n; $i++) {
            apcu_store($names[($first + $i) % DRAWS], $value);
        }
    } else {
        for ($i = 0; $i < $n; $i++) {
            apcu_inc('hits');
        }
    }
}

// The children tell through a pipe when their loops began and ended; the gate opens when the parent has heard of all of them.
function measure(string $operation, int $processes, int $n, SplFixedArray $names, string $value): float
{
    $pairs = [];
    for ($process = 0; $process < $processes; $process++) {
        $pair = stream_socket_pair(STREAM_PF_UNIX, STREAM_SOCK_STREAM, 0);
        $pid = pcntl_fork();
        if ($pid === 0) {
            run($operation, $names, $value, $process * ORDER_STEP, intdiv($n, 8) + 1);
            fwrite($pair[1], "ready\n");
            fgets($pair[1]);
            $begin = hrtime(true);
            run($operation, $names, $value, $process * ORDER_STEP, $n);
            fwrite($pair[1], $begin . ' ' . hrtime(true) . "\n");
            posix_kill(posix_getpid(), SIGKILL);  // exit() would tear down the cache's process-wide state.
        }
        $pairs[$pid] = $pair;
    }
    foreach ($pairs as $pair) {
        fgets($pair[0]);
    }
    foreach ($pairs as $pair) {
        fwrite($pair[0], "go\n");
    }
    $begin = PHP_INT_MAX;
    $end = 0;
    foreach ($pairs as $pid => $pair) {
        [$child_begin, $child_end] = explode(' ', trim(fgets($pair[0])));
        $begin = min($begin, (int) $child_begin);
        $end = max($end, (int) $child_end);
        pcntl_waitpid($pid, $status);
    }
    return ($end - $begin) / $n;
}

$server = stream_socket_server("unix://$socket");
while ($connection = stream_socket_accept($server, -1)) {
    [$operation, $processes, $n] = explode(' ', trim(fgets($connection)));
    $answer = $operation === 'bytes' ? $entry_bytes : measure($operation, (int) $processes, (int) $n, $names, $value);
    fwrite($connection, $answer . "\n");
    fclose($connection);
}
