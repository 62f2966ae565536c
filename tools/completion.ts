import { tableOptions } from '../src/config/load.js';
import { documentNames } from '../src/control/api.js';
import {
  type Command,
  type CommandOption,
  type Completion,
  globalOptions,
  type OptionTable,
} from '../src/ctl/command.js';
import { commands } from '../src/ctl/commands/index.js';
import { wrapped } from '../src/text.js';

const commandOptions: OptionTable = Object.assign({}, ...commands.map(({ options }) => options));

/** The pattern of a shell's `case` for the options of a table that have an argument. */
function pattern(
  table: OptionTable,
  accept: (option: CommandOption) => boolean = () => true,
): string {
  return Object.entries(table)
    .filter(([, option]) => option.argument !== undefined && accept(option))
    .flatMap(([name, { short }]) => [...(short === undefined ? [] : [`-${short}`]), `--${name}`])
    .join(' | ');
}

function completedAs(kind: Completion): string {
  return pattern({ ...globalOptions, ...commandOptions }, ({ completes }) => completes === kind);
}

function longForms(table: OptionTable): string {
  return Object.keys(table)
    .map((name) => `--${name}`)
    .join(' ');
}

/** The lines of the `case` over command and number of operand. */
function operandCases({ name, completes }: Command): string[] {
  return completes.flatMap((kind, index) => {
    if (kind === 'none') return [];
    // The last entry is also for all further operands.
    const place = index === completes.length - 1 ? '*' : String(index);
    return [`    ${name}:${place}) kind='${kind}' ;;`];
  });
}

const head = `# Completion of mdserverctl(1) for bash. Generated from the commands (npm run generate): do not edit.
# shellcheck shell=bash
`;

/** The completion for bash, generated from the commands. */
export function bashCompletion(): string {
  const commandCases = commands.map(
    ({ name, options }) =>
      `    ${name}) options='${longForms({ ...options, ...globalOptions })}' ;;`,
  );
  const configOptions = Array.from(tableOptions(), ({ name }) => name);
  return `${head}
_mdserverctl() {
  local word=\${COMP_WORDS[COMP_CWORD]} before=\${COMP_WORDS[COMP_CWORD - 1]}
  local command='' kind='' options='${longForms(globalOptions)}'
  local -i index place=0
  local -a where=()
  COMPREPLY=()
  for ((index = 1; index < COMP_CWORD; index++)); do
    case \${COMP_WORDS[index]} in
    ${pattern(globalOptions)}) where+=("\${COMP_WORDS[index]}" "\${COMP_WORDS[++index]}") ;;
    ${pattern(commandOptions)}) ((++index)) ;;
    -?*) ;;
    *) if [ -z "$command" ]; then command=\${COMP_WORDS[index]}; else ((++place)); fi ;;
    esac
  done
  case $command in
${commandCases.join('\n')}
  esac
  case $command:$place in
    :*) kind='command' ;;
${commands.flatMap(operandCases).join('\n')}
  esac
  case $before in
    ${completedAs('file')}) kind='file' ;;
    ${completedAs('uri')}) kind='uri' ;;
    *) if [[ $word == -?* ]]; then kind='option'; fi ;;
  esac
  case $kind in
    command) mapfile -t COMPREPLY < <(compgen -W '${commands.map(({ name }) => name).join(' ')}' -- "$word") ;;
    option) mapfile -t COMPREPLY < <(compgen -W "$options" -- "$word") ;;
    document) mapfile -t COMPREPLY < <(compgen -W '${documentNames.join(' ')}' -- "$word") ;;
    config-option)
      mapfile -t COMPREPLY < <(compgen -W '
${wrapped(configOptions.join(' '), 90, '        ').join('\n')}
      ' -- "$word")
      ;;
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
