"""`completions`: a script that teaches a shell the commands and options, made from the grammar."""

from __future__ import annotations

from garage_lite.cli.grammar import COMMANDS, GLOBAL_OPTIONS
from garage_lite.cli.parse import PROGRAM
from garage_lite.cli.run import CommandFailed, Context

_BASH = """\
_garage_lite() {{
    local word="${{COMP_WORDS[COMP_CWORD]}}" path="" skip="" i
    for ((i = 1; i < COMP_CWORD; i++)); do
        if [ -n "$skip" ]; then skip=""; continue; fi
        case "${{COMP_WORDS[i]}}" in
            {valued}) skip=1 ;;
            -*) ;;
            *) path="${{path:+$path }}${{COMP_WORDS[i]}}" ;;
        esac
    done
    case "$path" in
{cases}
        *) COMPREPLY=($(compgen -f -- "$word")) ;;
    esac
}}
complete -o default -F _garage_lite {program} garage
"""


def completions(context: Context) -> None:
    shell = context.values["shell"].lower()
    if shell == "bash":
        print(_bash(), end="")
    elif shell == "zsh":
        print("autoload -U +X bashcompinit && bashcompinit\n" + _bash(), end="")
    elif shell == "fish":
        print("\n".join(_fish()))
    else:
        raise CommandFailed(f"no completions for {shell!r}; expected bash, zsh or fish")


def _words() -> dict[str, list[str]]:
    """What may follow: words of a command after each beginning, options after a whole one."""
    following: dict[str, list[str]] = {}
    for command in COMMANDS.values():
        if command.hidden:
            continue
        for depth, word in enumerate(command.path):
            words = following.setdefault(" ".join(command.path[:depth]), [])
            if word not in words:
                words.append(word)
        options = [name for option in command.options for name in option.names]
        following.setdefault(" ".join(command.path), []).extend(options)
    return following


def _bash() -> str:
    valued = "|".join(n for option in GLOBAL_OPTIONS if option.value for n in option.names)
    cases = "\n".join(
        f'        "{path}") COMPREPLY=($(compgen -W "{" ".join(words)}" -- "$word")) ;;'
        for path, words in _words().items()
    )
    return _BASH.format(valued=valued, cases=cases, program=PROGRAM)


def _fish() -> list[str]:
    lines = []
    for path, words in _words().items():
        condition = "; and ".join(f"__fish_seen_subcommand_from {w}" for w in path.split())
        seen = f"-n '{condition or '__fish_use_subcommand'}'"
        plain = " ".join(word for word in words if not word.startswith("-"))
        if plain:
            lines.append(f"complete -c {PROGRAM} -f {seen} -a '{plain}'")
        lines += [
            f"complete -c {PROGRAM} {seen} -l {word[2:]}" for word in words if word[:2] == "--"
        ]
    return lines
