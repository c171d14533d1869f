// statehouse completion: the shells' scripts. They ask the program itself what may come next.
#include <iostream>

#include "clients/cli/commands.h"
#include "clients/cli/completion.h"

namespace statehouse::cli {
namespace {

// readline replaces what follows the last ':' or '=' of a word, so what stands before is taken off.
constexpr const char* kBash = R"(# bash completion of statehouse
#   . <(statehouse completion bash)
#   statehouse completion bash > /etc/bash_completion.d/statehouse
_statehouse() {
    local line=${COMP_LINE:0:COMP_POINT} text about last before=
    local -a words
    read -ra words <<< "$line"
    [[ $line == *[[:space:]] ]] && words+=("")
    last=${words[${#words[@]} - 1]}
    [[ $last == *[:=]* ]] && before=${last%"${last##*[:=]}"}
    COMPREPLY=()
    while IFS=$'\t' read -r text about; do
        if [[ $text == :files ]]; then
            compopt -o default 2> /dev/null
            return
        fi
        COMPREPLY+=("${text#"$before"}")
    done < <("$1" __complete "${words[@]:1}" 2> /dev/null)
}
complete -F _statehouse statehouse
)";

constexpr const char* kZsh = R"(#compdef statehouse
# zsh completion of statehouse
#   . <(statehouse completion zsh)
#   statehouse completion zsh > "${fpath[1]}/_statehouse"
_statehouse() {
    local line
    local -a lines described
    lines=("${(@f)$($words[1] __complete "${(@Q)words[2,CURRENT]}" 2> /dev/null)}")
    if [[ $lines[1] == :files ]]; then
        _files
        return
    fi
    for line in $lines; do
        if [[ $line == *$'\t'* ]]; then
            described+=("${${line%%$'\t'*}//:/\\:}:${line#*$'\t'}")
        else
            described+=("${line//:/\\:}")
        fi
    done
    _describe statehouse described
}
if [[ $funcstack[1] == _statehouse ]]; then
    _statehouse "$@"
else
    compdef _statehouse statehouse
fi
)";

constexpr const char* kFish = R"(# fish completion of statehouse
#   statehouse completion fish | source
#   statehouse completion fish > ~/.config/fish/completions/statehouse.fish
function __statehouse_complete
    set -l words (commandline -opc)
    set -l current (commandline -ct)
    set -l program $words[1]
    set -e words[1]
    set -l lines ($program __complete $words "$current" 2> /dev/null)
    if test "$lines[1]" = :files
        __fish_complete_path "$current"
    else if test (count $lines) -gt 0
        printf '%s\n' $lines
    end
end
complete -c statehouse -f -a '(__statehouse_complete)'
)";

}  // namespace

std::string CompletionScript(const std::string& shell) {
  if (shell == "bash") return kBash;
  if (shell == "zsh") return kZsh;
  return shell == "fish" ? kFish : "";
}

void AddCompletionCommand(CLI::App* app) {
  const auto shell = std::make_shared<std::string>();
  CLI::App* const command = app->add_subcommand(
      "completion", "Prints a script that completes commands, options and live names in a shell");
  command->add_option("SHELL", *shell, "bash, zsh or fish")
      ->required()
      ->check(CLI::IsMember({"bash", "zsh", "fish"}));
  command->footer(
      "Examples:\n"
      "  . <(statehouse completion bash)\n"
      "  statehouse completion zsh > \"${fpath[1]}/_statehouse\"\n"
      "  statehouse completion fish | source");
  command->callback([shell] { std::cout << CompletionScript(*shell); });
}

}  // namespace statehouse::cli
