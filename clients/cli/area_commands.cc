// statehouse area …
#include <cinttypes>
#include <cstdio>
#include <functional>
#include <iostream>
#include <iterator>
#include <map>
#include <nlohmann/json.hpp>

#include "clients/cli/commands.h"
#include "clients/cli/confirmation.h"
#include "clients/cli/exit_codes.h"
#include "clients/cli/hex_dump.h"

namespace statehouse::cli {
namespace {

const std::map<std::string, sh_word_type> kWordTypes = {
    {"u8", SH_U8}, {"u16", SH_U16}, {"u32", SH_U32}, {"u64", SH_U64},
    {"i8", SH_I8}, {"i16", SH_I16}, {"i32", SH_I32}, {"i64", SH_I64}};

// What the flags of one command hold; shared by its options and its callback.
struct Arguments {
  std::string name;
  std::string prefix;
  std::string text;
  std::string type = "u64";
  std::string file;
  uint64_t pos = 0;
  uint64_t len = 0;
  uint64_t size = 0;
  uint64_t pages = 0;
  uint64_t offset = 0;
  uint64_t since = 0;
  uint64_t fence = 0;
  int64_t delta = 1;
  std::string number;
  std::string number2;
  double timeout_s = -1;
  bool exclusive = false;
  bool hex = false;
  bool yes = false;
  CLI::Option* len_option = nullptr;
  CLI::Option* text_option = nullptr;
  CLI::Option* since_option = nullptr;
};

nlohmann::json ToJson(const sh_area_info& info) {
  static constexpr const char* kBackings[] = {"?", "memory", "file", "descriptor"};
  return {{"name", info.name},
          {"index", info.index},
          {"size", info.size},
          {"updates", info.updates},
          {"atomic_range_bytes", info.atomic_range_bytes},
          {"backing", kBackings[info.backing <= SH_BACKING_DESCRIPTOR ? info.backing : 0]},
          {"offset", info.offset},
          {"attached_processes", info.attached_processes},
          {"memory_bytes", info.memory_bytes},
          {"create_time_unix_ns", info.create_time_ns}};
}

void PrintInfo(const sh_area_info& info, bool json) {
  const nlohmann::json object = ToJson(info);
  if (json) {
    std::cout << object.dump(2) << "\n";
    return;
  }
  for (const auto& [key, value] : object.items()) {
    std::printf("%-20s %s\n", key.c_str(),
                value.is_string() ? value.get<std::string>().c_str() : value.dump().c_str());
  }
}

sh_word_type TypeOf(const Arguments& arguments) { return kWordTypes.at(arguments.type); }

bool IsSigned(sh_word_type type) { return type >= SH_I8; }

// A number as the C library takes it; Failed for text that is no number of the type's sign.
uint64_t ParseNumber(const std::string& text, sh_word_type type) {
  size_t used = 0;
  try {
    const bool negative = !text.empty() && text[0] == '-';
    if (negative && !IsSigned(type)) throw std::invalid_argument("sign");
    const uint64_t number =
        negative ? static_cast<uint64_t>(std::stoll(text, &used, 0)) : std::stoull(text, &used, 0);
    if (used == text.size()) return number;
  } catch (const std::exception&) {
    used = 0;
  }
  throw Failed{kExitUsage, "'" + text + "' is no number that fits the word type"};
}

void PrintNumber(uint64_t bits, sh_word_type type) {
  if (IsSigned(type)) {
    std::printf("%" PRId64 "\n", static_cast<int64_t>(bits));
  } else {
    std::printf("%" PRIu64 "\n", bits);
  }
}

std::string ReadRange(const Globals& globals, const Arguments& arguments) {
  const Client client = Connect(globals);
  const OpenArea area = Open(client.get(), arguments.name);
  const uint64_t size = sh_area_size(area.get());
  uint64_t len = arguments.len;
  if (arguments.len_option->empty()) len = arguments.pos <= size ? size - arguments.pos : 0;
  std::string bytes;
  // Past the end the library refuses and names the numbers; only what can be there is allocated.
  bytes.resize(len <= size ? len : 0);
  sh_error* error = nullptr;
  Check(sh_read(area.get(), arguments.pos, bytes.data(), len, &error), error);
  return bytes;
}

void List(const Globals& globals, const Arguments& arguments) {
  const Client client = Connect(globals);
  sh_area_info* infos = nullptr;
  size_t count = 0;
  sh_error* error = nullptr;
  Check(sh_area_list(client.get(), arguments.prefix.c_str(), &infos, &count, &error), error);
  const std::unique_ptr<sh_area_info, void (*)(sh_area_info*)> owner(infos, sh_area_list_free);
  if (globals.json) {
    nlohmann::json list = nlohmann::json::array();
    for (size_t i = 0; i < count; ++i) list.push_back(ToJson(infos[i]));
    std::cout << list.dump(2) << "\n";
    return;
  }
  std::printf("%6s  %-32s %14s %14s %9s\n", "INDEX", "NAME", "SIZE", "UPDATES", "ATTACHED");
  for (size_t i = 0; i < count; ++i) {
    std::printf("%6u  %-32s %14" PRIu64 " %14" PRIu64 " %9u\n", infos[i].index, infos[i].name,
                infos[i].size, infos[i].updates, infos[i].attached_processes);
  }
}

void Create(const Globals& globals, const Arguments& arguments) {
  const Client client = Connect(globals);
  sh_area_spec spec = {};
  spec.size = arguments.size;
  spec.pages = arguments.pages;
  spec.file = arguments.file.empty() ? nullptr : arguments.file.c_str();
  spec.offset = arguments.offset;
  spec.exclusive = arguments.exclusive ? 1 : 0;
  sh_area_info info = {};
  int created = 0;
  sh_error* error = nullptr;
  Check(sh_area_create(client.get(), arguments.name.c_str(), &spec, &info, &created, &error),
        error);
  std::fprintf(stderr, "%s area \"%s\" of %" PRIu64 " bytes\n", created ? "created" : "found",
               info.name, info.size);
  if (globals.json) PrintInfo(info, true);
}

void Write(const Globals& globals, const Arguments& arguments) {
  std::string bytes = arguments.text;
  if (arguments.text_option->empty()) {
    bytes.assign(std::istreambuf_iterator<char>(std::cin), std::istreambuf_iterator<char>());
  }
  if (arguments.hex) {
    const std::optional<std::string> decoded = FromHex(bytes);
    if (!decoded.has_value()) throw Failed{kExitUsage, "--hex: the text is no hexadecimal"};
    bytes = *decoded;
  }
  const Client client = Connect(globals);
  const OpenArea area = Open(client.get(), arguments.name);
  sh_error* error = nullptr;
  Check(sh_write_fenced(area.get(), arguments.pos, bytes.data(), bytes.size(), arguments.fence,
                        &error),
        error);
}

void Wait(const Globals& globals, const Arguments& arguments) {
  const Client client = Connect(globals);
  const OpenArea area = Open(client.get(), arguments.name);
  sh_error* error = nullptr;
  uint64_t since = arguments.since;
  if (arguments.since_option->empty()) Check(sh_updates(area.get(), &since, &error), error);
  const uint64_t timeout =
      arguments.timeout_s < 0 ? SH_FOREVER : static_cast<uint64_t>(arguments.timeout_s * 1000);
  int changed = 0;
  uint64_t updates = 0;
  Check(sh_wait(area.get(), since, timeout, &changed, &updates, &error), error);
  if (globals.json) {
    std::cout << nlohmann::json{{"changed", changed != 0}, {"updates", updates}}.dump() << "\n";
  } else {
    std::printf("%" PRIu64 "\n", updates);
  }
  if (changed == 0) throw Failed{kExitUnavailable, "nothing changed within the timeout"};
}

using Run = std::function<void(const Globals&, const Arguments&)>;

// A subcommand with the area's name as its first argument, and its callback.
CLI::App* Command(CLI::App* group, const std::string& name, const std::string& help,
                  const Globals* globals, const std::shared_ptr<Arguments>& arguments, Run run) {
  CLI::App* command = group->add_subcommand(name, help);
  command->callback([globals, arguments, run = std::move(run)] { run(*globals, *arguments); });
  return command;
}

void AddName(CLI::App* command, Arguments* arguments) {
  command->add_option("NAME", arguments->name, "The area, or \"#<index>\"")->required();
}

void AddPos(CLI::App* command, Arguments* arguments) {
  command->add_option("POS", arguments->pos, "First byte")->required();
}

void AddFence(CLI::App* command, Arguments* arguments) {
  command->add_option("--fence", arguments->fence, "A fencing token; an older one is refused");
}

void AddType(CLI::App* command, Arguments* arguments) {
  command->add_option("-t,--type", arguments->type, "Word type: u8 … u64, i8 … i64 (default u64)")
      ->check(CLI::IsMember(kWordTypes));
}

void AddCatalogueCommands(CLI::App* group, const Globals* globals) {
  auto list = std::make_shared<Arguments>();
  Command(group, "ls", "Lists areas in order of creation", globals, list, List)
      ->add_option("PREFIX", list->prefix, "Only names that begin with this");

  auto create = std::make_shared<Arguments>();
  CLI::App* command = Command(group, "create", "Creates an area, or finds the one that agrees",
                              globals, create, Create);
  AddName(command, create.get());
  command->add_option("--size", create->size, "Bytes; suffixes k, M, G are powers of 1024")
      ->transform(CLI::AsSizeValue(false));
  command->add_option("--pages", create->pages, "Size in pages of 4,096 bytes");
  command->add_option("--file", create->file, "A file of the service's host that holds the bytes");
  command->add_option("--offset", create->offset, "Where the area begins in the file");
  command->add_flag("--exclusive", create->exclusive, "Refuse when the name exists");

  auto describe = std::make_shared<Arguments>();
  command = Command(group, "describe", "Tells size, counters and backing", globals, describe,
                    [](const Globals& g, const Arguments& a) {
                      const Client client = Connect(g);
                      sh_area_info info = {};
                      sh_error* error = nullptr;
                      Check(sh_area_describe(client.get(), a.name.c_str(), &info, &error), error);
                      PrintInfo(info, g.json);
                    });
  AddName(command, describe.get());

  auto remove = std::make_shared<Arguments>();
  command = Command(group, "rm", "Deletes an area; workers that map it are told", globals, remove,
                    [](const Globals& g, const Arguments& a) {
                      RequireYes(a.yes, "area \"" + a.name + "\"");
                      const Client client = Connect(g);
                      sh_error* error = nullptr;
                      Check(sh_area_delete(client.get(), a.name.c_str(), &error), error);
                    });
  AddName(command, remove.get());
  AddYes(command, &remove->yes);
}

void AddRangeCommands(CLI::App* group, const Globals* globals) {
  auto read = std::make_shared<Arguments>();
  CLI::App* command =
      Command(group, "read", "Writes a range to standard output as it is (JSON: hexadecimal)",
              globals, read, [](const Globals& g, const Arguments& a) {
                const std::string bytes = ReadRange(g, a);
                if (g.json) {
                  std::cout << nlohmann::json{{"pos", a.pos}, {"hex", ToHex(bytes)}}.dump() << "\n";
                } else {
                  std::cout.write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
                }
              });
  AddName(command, read.get());
  AddPos(command, read.get());
  read->len_option = command->add_option("LEN", read->len, "Bytes; default: to the end");

  auto dump = std::make_shared<Arguments>();
  command = Command(
      group, "hex", "Shows a range as offsets, hexadecimal and characters", globals, dump,
      [](const Globals& g, const Arguments& a) { std::cout << HexDump(ReadRange(g, a), a.pos); });
  AddName(command, dump.get());
  command->add_option("POS", dump->pos, "First byte (default 0)");
  dump->len_option = command->add_option("LEN", dump->len, "Bytes; default: to the end");

  auto write = std::make_shared<Arguments>();
  command = Command(group, "write", "Writes a range, whole or not at all up to 64 KiB", globals,
                    write, Write);
  AddName(command, write.get());
  AddPos(command, write.get());
  write->text_option =
      command->add_option("TEXT", write->text, "The bytes; default: standard input");
  command->add_flag("--hex", write->hex, "The bytes are given in hexadecimal");
  AddFence(command, write.get());

  auto wait = std::make_shared<Arguments>();
  command = Command(group, "wait", "Waits until the area changes; prints the update counter",
                    globals, wait, Wait);
  AddName(command, wait.get());
  wait->since_option =
      command->add_option("--since", wait->since, "The update counter last seen; default: now");
  command
      ->add_option("--for", wait->timeout_s,
                   "Seconds; default: for ever. Exit code 6 when they pass")
      ->check(CLI::NonNegativeNumber);
}

void AddWordCommands(CLI::App* group, const Globals* globals) {
  auto load = std::make_shared<Arguments>();
  CLI::App* command = Command(group, "load", "Prints a word", globals, load,
                              [](const Globals& g, const Arguments& a) {
                                const Client client = Connect(g);
                                const OpenArea area = Open(client.get(), a.name);
                                uint64_t bits = 0;
                                sh_error* error = nullptr;
                                Check(sh_load(area.get(), TypeOf(a), a.pos, &bits, &error), error);
                                PrintNumber(bits, TypeOf(a));
                              });
  AddName(command, load.get());
  AddPos(command, load.get());
  AddType(command, load.get());

  auto store = std::make_shared<Arguments>();
  command = Command(group, "store", "Writes a word", globals, store,
                    [](const Globals& g, const Arguments& a) {
                      const uint64_t bits = ParseNumber(a.number, TypeOf(a));
                      const Client client = Connect(g);
                      const OpenArea area = Open(client.get(), a.name);
                      sh_error* error = nullptr;
                      Check(sh_store_fenced(area.get(), TypeOf(a), a.pos, bits, a.fence, &error),
                            error);
                    });
  AddName(command, store.get());
  AddPos(command, store.get());
  command->add_option("NUMBER", store->number, "What to write")->required();
  AddType(command, store.get());
  AddFence(command, store.get());

  auto add = std::make_shared<Arguments>();
  command = Command(group, "add", "Adds to a word and prints the new value", globals, add,
                    [](const Globals& g, const Arguments& a) {
                      const Client client = Connect(g);
                      const OpenArea area = Open(client.get(), a.name);
                      uint64_t bits = 0;
                      sh_error* error = nullptr;
                      Check(sh_add_fenced(area.get(), TypeOf(a), a.pos, a.delta, a.fence, &bits,
                                          &error),
                            error);
                      PrintNumber(bits, TypeOf(a));
                    });
  AddName(command, add.get());
  AddPos(command, add.get());
  command->add_option("DELTA", add->delta, "What to add (default 1; negative numbers subtract)");
  AddType(command, add.get());
  AddFence(command, add.get());
}

void AddExchangeCommand(CLI::App* group, const Globals* globals) {
  auto exchange = std::make_shared<Arguments>();
  CLI::App* command =
      Command(group, "cas",
              "Writes DESIRED if the word holds EXPECTED; exit code 4 and the word found if not",
              globals, exchange, [](const Globals& g, const Arguments& a) {
                const uint64_t expected = ParseNumber(a.number, TypeOf(a));
                const uint64_t desired = ParseNumber(a.number2, TypeOf(a));
                const Client client = Connect(g);
                const OpenArea area = Open(client.get(), a.name);
                int exchanged = 0;
                uint64_t found = 0;
                sh_error* error = nullptr;
                Check(sh_compare_exchange_fenced(area.get(), TypeOf(a), a.pos, expected, desired,
                                                 a.fence, &exchanged, &found, &error),
                      error);
                PrintNumber(found, TypeOf(a));
                if (exchanged == 0) throw Failed{kExitConflict, "the word holds another number"};
              });
  AddName(command, exchange.get());
  AddPos(command, exchange.get());
  command->add_option("EXPECTED", exchange->number, "What it must hold")->required();
  command->add_option("DESIRED", exchange->number2, "What is written then")->required();
  AddType(command, exchange.get());
  AddFence(command, exchange.get());
}

}  // namespace

void AddAreaCommands(CLI::App* app, const Globals* globals) {
  CLI::App* group = app->add_subcommand("area", "Named blocks of bytes with atomic words");
  group->require_subcommand(1);
  group->footer(
      "Examples:\n"
      "  statehouse area create counters --size 4k\n"
      "  statehouse area add counters 0 5             prints the new value\n"
      "  statehouse area write counters 64 hello\n"
      "  statehouse area hex counters 0 128\n"
      "  statehouse area wait counters --for 10 && echo changed");
  AddCatalogueCommands(group, globals);
  AddRangeCommands(group, globals);
  AddWordCommands(group, globals);
  AddExchangeCommand(group, globals);
}

}  // namespace statehouse::cli
