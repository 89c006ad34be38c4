"""Shell completion: scripts generated from the table of commands, for bash, zsh and fish.

The scripts hold the names themselves, so that pressing Tab starts no Python.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from memdb.cli.spec import COMMON, GROUPS, Command, Option

SHELLS = ("bash", "zsh", "fish")
_TAKES_PATH = ("db", "path")


def script(shell: str, commands: Sequence[Command]) -> str:
    """The completion script for one of ``SHELLS``."""
    return {"bash": _bash, "zsh": _zsh, "fish": _fish}[shell](commands)


def _verbs(commands: Iterable[Command]) -> dict[str, list[str]]:
    """First words in order, each with its second words."""
    verbs: dict[str, list[str]] = {}
    for command in commands:
        verbs.setdefault(command.words[0], []).extend(command.words[1:])
    return verbs


def _flags(option: Option) -> list[str]:
    flags = list(option.flags)
    if option.kind == "switch":
        flags += [f"--no-{flag[2:]}" for flag in option.flags]
    return flags


def _offered(command: Command) -> list[str]:
    flags = [flag for option in (*command.options, *COMMON) for flag in _flags(option)]
    return [*flags, "--help"]


def _bash(commands: Sequence[Command]) -> str:
    verbs = _verbs(commands)
    alone = {command.name: _offered(command) for command in commands}
    seconds = "".join(
        f'        {verb}) words="{" ".join([*inner, *alone.get(verb, ())])}" ;;\n'
        for verb, inner in verbs.items()
        if inner
    )
    offers = "".join(
        f'        "{command.name}") words="{" ".join(_offered(command))}" ;;\n'
        for command in commands
    )
    choices = "".join(
        f'        {"|".join(option.flags)}) words="{" ".join(option.choices)}" ;;\n'
        for option in _distinct_choices(commands)
    )
    groups = "|".join(verb for verb, inner in verbs.items() if inner)
    return f"""\
# bash completion for memdb: eval "$(memdb completion bash)"
_memdb() {{
    local current="${{COMP_WORDS[COMP_CWORD]}}" previous="${{COMP_WORDS[COMP_CWORD-1]}}"
    local first="" second="" words="" place
    for ((place = 1; place < COMP_CWORD; place++)); do
        case "${{COMP_WORDS[place]}}" in
        --db|--namespace|--embedder) ((place++)) ;;
        -*) ;;
        *) if [[ -z $first ]]; then first="${{COMP_WORDS[place]}}"
           elif [[ -z $second ]]; then second="${{COMP_WORDS[place]}}"; fi ;;
        esac
    done
    COMPREPLY=()
    case "$previous" in
{choices}        --db) COMPREPLY=($(compgen -d -- "$current")); return ;;
    esac
    if [[ -z $words ]]; then
        case "$first" in
        "") words="{" ".join(verbs)} --db --namespace --embedder --json --help --version" ;;
        {groups})
            if [[ -z $second ]]; then
                case "$first" in
{seconds}                esac
            else first="$first $second"; fi ;;
        esac
    fi
    if [[ -z $words ]]; then
        case "$first" in
{offers}        esac
        if [[ $current != -* ]]; then COMPREPLY=($(compgen -f -- "$current")); return; fi
    fi
    COMPREPLY=($(compgen -W "$words" -- "$current"))
}}
complete -o filenames -F _memdb memdb
"""


def _distinct_choices(commands: Iterable[Command]) -> list[Option]:
    """Options with a fixed set of values, one for each set of names."""
    found: dict[tuple[str, ...], Option] = {}
    for command in commands:
        for option in command.options:
            if option.choices and option.flags:
                found.setdefault(option.flags, option)
    return list(found.values())


def _zsh(commands: Sequence[Command]) -> str:
    lines = [
        "#compdef memdb",
        "# zsh completion for memdb; save it as _memdb in a folder of $fpath",
    ]
    lines += ["_memdb() {", "    local -a verbs", "    verbs=("]
    seen: set[str] = set()
    for command in commands:
        if command.words[0] not in seen:
            seen.add(command.words[0])
            label = command.summary if len(command.words) == 1 else "facts, streams or spaces"
            label = _group_label(command, label)
            lines.append(f"        {_quoted(command.words[0] + ':' + label)}")
    lines += ["    )", "    local curcontext=$curcontext state line", "    _arguments -C \\"]
    lines += [f"        {spec} \\" for option in COMMON for spec in _zsh_specs(option)]
    lines += ["        '1:command:->verb' '*::argument:->rest'"]
    lines += ["    case $state in", "    verb) _describe command verbs ;;", "    rest)"]
    lines += ["        case $line[1] in"]
    groups = {command.words[0] for command in commands if len(command.words) == 2}
    for command in commands:
        if len(command.words) == 1 and command.name not in groups:
            lines += [f"        {command.name})", *_zsh_arguments(command, "            ")]
            lines += ["            ;;"]
    for group in sorted(groups):
        inner = [command for command in commands if command.words[:-1] == (group,)]
        own = [flag for one in commands if one.name == group for flag in _offered(one)]
        names = " ".join([*(command.words[1] for command in inner), *own])
        lines += [f"        {group})", "            case $words[2] in"]
        for command in inner:
            lines += [
                f"            {command.words[1]})",
                "                shift words; ((CURRENT--))",
            ]
            lines += [*_zsh_arguments(command, "                "), "                ;;"]
        lines += [f"            *) compadd -- {names} ;;", "            esac ;;"]
    lines += ["        esac ;;", "    esac", "}"]
    lines += ['if [[ $funcstack[1] == _memdb ]]; then _memdb "$@"; else compdef _memdb memdb; fi']
    return "\n".join(lines) + "\n"


def _group_label(command: Command, label: str) -> str:
    return GROUPS[command.words[0]] if len(command.words) == 2 else label


def _zsh_arguments(command: Command, indent: str) -> list[str]:
    specs = [spec for option in (*command.options, *COMMON) for spec in _zsh_specs(option)]
    return [f"{indent}_arguments \\", *(f"{indent}    {spec} \\" for spec in specs),
            f"{indent}    '--help[show help]'"]  # fmt: skip


def _zsh_specs(option: Option) -> list[str]:
    help_text = option.help.replace("[", "(").replace("]", ")").replace(":", ",")
    if option.place != "option":
        action = "_files" if option.parameter in _TAKES_PATH else ""
        many = "*" if option.place == "many" else ""
        return [_quoted(f"{many}:{option.parameter}:{action}")]
    value = ""
    if option.kind not in ("flag", "switch"):
        action = f"({' '.join(option.choices)})" if option.choices else ""
        action = "_files -/" if option.parameter in _TAKES_PATH else action
        value = f":{option.parameter}:{action}"
    star = "*" if option.kind == "list" else ""
    return [_quoted(f"{star}{flag}[{help_text}]{value}") for flag in _flags(option)]


def _fish(commands: Sequence[Command]) -> str:
    verbs = _verbs(commands)
    lines = ["# fish completion for memdb: memdb completion fish | source"]
    lines.append(f"set -g __memdb_commands {' '.join(verbs)}")
    lines += [f"complete -c memdb {_fish_option(option)}" for option in COMMON]
    fresh = "'not __fish_seen_subcommand_from $__memdb_commands'"
    for verb in verbs:
        summary = GROUPS[verb] if verb in GROUPS else _summary(commands, verb)
        lines.append(f"complete -c memdb -f -n {fresh} -a {verb} -d {_quoted(summary)}")
    for command in commands:
        seen = f"__fish_seen_subcommand_from {command.words[0]}"
        if len(command.words) == 2:
            siblings = " ".join(verbs[command.words[0]])
            first = _quoted(f"{seen}; and not __fish_seen_subcommand_from {siblings}")
            lines.append(
                f"complete -c memdb -f -n {first} -a {command.words[1]} "
                f"-d {_quoted(command.summary)}"
            )
            seen += f"; and __fish_seen_subcommand_from {command.words[1]}"
        for option in command.options:
            if option.flags:
                lines.append(f"complete -c memdb -n {_quoted(seen)} {_fish_option(option)}")
    return "\n".join(lines) + "\n"


def _summary(commands: Iterable[Command], verb: str) -> str:
    return next(command.summary for command in commands if command.name == verb)


def _fish_option(option: Option) -> str:
    names = [
        f"-l {flag[2:]}" if flag.startswith("--") else f"-s {flag[1:]}" for flag in _flags(option)
    ]
    if option.kind in ("flag", "switch"):
        value = ""
    elif option.choices:
        value = f" -x -a {_quoted(' '.join(option.choices))}"
    else:
        value = " -r" if option.parameter in _TAKES_PATH else " -x"
    return f"{' '.join(names)}{value} -d {_quoted(option.help)}"


def _quoted(text: str) -> str:
    """One word of a POSIX shell; fish reads it the same but for the quote itself."""
    return "'" + text.replace("'", "'\\''") + "'"
