// statehouse: the command line. Data goes to standard output, everything else to standard error.
#include <cstdio>
#include <iostream>
#include <string_view>

#include "clients/cli/application.h"
#include "clients/cli/commands.h"
#include "clients/cli/completion.h"
#include "clients/cli/exit_codes.h"

int main(int argc, char** argv) {
  using namespace statehouse::cli;
  std::vector<const char*> words(argv, argv + argc);
  Globals globals;
  const std::unique_ptr<CLI::App> app = MakeApplication(&globals, TakeCommand(&words));
  try {
    if (words.size() > 1 && words[1] == std::string_view(kCompleteWord)) {
      PrintCompletion(*app, {words.begin() + 2, words.end()});
      std::cout.flush();
      return kExitOk;
    }
    app->parse(static_cast<int>(words.size()), words.data());
  } catch (const CLI::ParseError& error) {
    const std::vector<std::string> left = app->remaining(/*recurse=*/true);
    if (dynamic_cast<const CLI::RequiredError*>(&error) != nullptr && !left.empty()) {
      std::fprintf(stderr, "statehouse: \"%s\" is no command and no option here\n",
                   left.front().c_str());
    }
    const int code = app->exit(error);
    return code == 0 ? kExitOk : kExitUsage;
  } catch (const Failed& failed) {
    std::cout.flush();
    if (!failed.message.empty()) std::fprintf(stderr, "statehouse: %s\n", failed.message.c_str());
    return failed.exit_code;
  }
  std::cout.flush();
  return std::cout.good() && std::fflush(stdout) == 0 ? kExitOk : kExitError;
}
