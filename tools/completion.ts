import { documentNames } from '../src/control/api.js';
import {
  type Command,
  type Completion,
  commandOptions,
  commandTable,
  globalOptions,
  type OptionName,
  optionNamed,
} from '../src/ctl/commands.js';

const names = Object.keys(commandOptions) as OptionName[];

function forms(name: OptionName): string[] {
  const { short } = optionNamed(name);
  return [...(short === undefined ? [] : [`-${short}`]), `--${name}`];
}

/** The pattern of a shell's `case` for options. */
function pattern(chosen: readonly OptionName[]): string {
  return chosen.flatMap(forms).join(' | ');
}

const withArgument = names.filter((name) => optionNamed(name).argument !== undefined);

function completing(kind: Completion): OptionName[] {
  return withArgument.filter((name) => optionNamed(name).completes === kind);
}

/** One line of the `case` over command and number of operand. */
function operandCases([name, { completes }]: readonly [string, Command]): string[] {
  return completes.flatMap((kind, index) => {
    if (kind === 'none') return [];
    // What is said of the last operand holds for all that follow.
    const place = index === completes.length - 1 ? '*' : String(index);
    return [`    ${name}:${place}) kind='${kind}' ;;`];
  });
}

const head = `# Completion of mdserverctl(1) for bash. Made from the table of commands: a change here is lost.
# shellcheck shell=bash
`;

/** The completion for bash, from the table of commands. */
export function bashCompletion(): string {
  const commandCases = [...commandTable].map(
    ([name, { options }]) =>
      `    ${name}) options='${[...options, ...globalOptions].map((option) => `--${option}`).join(' ')}' ;;`,
  );
  return `${head}
_mdserverctl() {
  local word=\${COMP_WORDS[COMP_CWORD]} before=\${COMP_WORDS[COMP_CWORD - 1]}
  local command='' kind='' options='${globalOptions.map((name) => `--${name}`).join(' ')}'
  local -i index place=0
  local -a where=()
  COMPREPLY=()
  for ((index = 1; index < COMP_CWORD; index++)); do
    case \${COMP_WORDS[index]} in
    --config | --socket) where+=("\${COMP_WORDS[index]}" "\${COMP_WORDS[++index]}") ;;
    ${pattern(withArgument.filter((name) => !globalOptions.includes(name)))}) ((++index)) ;;
    -?*) ;;
    *) if [ -z "$command" ]; then command=\${COMP_WORDS[index]}; else ((++place)); fi ;;
    esac
  done
  case $command in
${commandCases.join('\n')}
  esac
  case $command:$place in
    :*) kind='command' ;;
${[...commandTable].flatMap(operandCases).join('\n')}
  esac
  case $before in
    ${pattern(completing('file'))}) kind='file' ;;
    ${pattern(completing('uri'))}) kind='uri' ;;
    *) if [[ $word == -?* ]]; then kind='option'; fi ;;
  esac
  case $kind in
    command) mapfile -t COMPREPLY < <(compgen -W '${[...commandTable.keys()].join(' ')}' -- "$word") ;;
    option) mapfile -t COMPREPLY < <(compgen -W "$options" -- "$word") ;;
    document) mapfile -t COMPREPLY < <(compgen -W '${documentNames.join(' ')}' -- "$word") ;;
    uri) mapfile -t COMPREPLY < <(compgen -W 'qemu:///system qemu:///session' -- "$word") ;;
    file)
      compopt -o filenames 2>/dev/null
      mapfile -t COMPREPLY < <(compgen -f -- "$word")
      ;;
    instance)
      mapfile -t COMPREPLY < <(
        mdserverctl "\${where[@]}" list 2>/dev/null | cut -f 1 |
          while IFS= read -r name; do [[ $name == "$word"* ]] && printf '%q\\n' "$name"; done
      )
      ;;
  esac
}
complete -F _mdserverctl mdserverctl
`;
}
