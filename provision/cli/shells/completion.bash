# bash completion for alluxio-provision @VERSION@. Made by alluxio-provision, not to be edited.
#
# Tasks and options are in this file. Names of hosts are asked of the program, which reads the
# inventory and nothing else.

# Of a task: its options, what their values are, and what its words are ("?": may be left out,
# "*": any number).
_alluxio_provision_task() {
  case $1 in
@TASKS@
  esac
}

# Candidates of one kind for the value $2, in COMPREPLY. The rest is the line so far.
_alluxio_provision_value() {
  local kind=$1 value=$2 program=$3 some name
  shift 3
  case $kind in
    nothing) return ;;
    file) compopt -o default; return ;;
    folder) compopt -o dirnames; return ;;
    format:*) some=${kind#format:}; some=${some//,/ } ;;
    error-id) some='@IDS@' ;;
    schema) some='@SCHEMAS@' ;;
    topic) some='@TOPICS@' ;;
    task) some='@NAMES@' ;;
    *)
      # Names come one a line, and are never expanded: they are of a file.
      while IFS= read -r name; do
        [[ $name == "$value"* ]] && COMPREPLY+=("$name")
      done < <(PYTHONDONTWRITEBYTECODE=1 "$program" --complete-names "$kind" "$value" "$@" 2>/dev/null)
      return
      ;;
  esac
  for name in $some; do
    [[ $name == "$value"* ]] && COMPREPLY+=("$name")
  done
}

_alluxio_provision() {
  COMPREPLY=()
  local program=${COMP_WORDS[0]/#\~/$HOME}
  local options='@BEFORE@' values='@BEFORE_VALUES@' kinds='' task='' waiting='' last='' word kind n
  local -a line=() places=()
  # Readline takes --option=value for three words.
  for ((n = 1; n <= COMP_CWORD; n++)); do
    word=${COMP_WORDS[n]}
    if [[ $word == '=' && ${#line[@]} -gt 0 && ${line[-1]} == --* ]]; then
      line[-1]+='='
    elif ((${#line[@]})) && [[ ${line[-1]} == --*= && ${COMP_WORDS[n - 1]} == '=' ]]; then
      line[-1]+=$word
    else
      line+=("$word")
    fi
  done
  ((${#line[@]})) || line=('')
  local current=${line[-1]}
  unset 'line[-1]'
  for word in "${line[@]}"; do
    if [[ $waiting ]]; then
      waiting=''
      continue
    fi
    read -ra places <<<"$kinds"
    kind=${places[0]:-}
    case $word in
      --) return ;;
      --*=*) ;;
      -*)
        [[ $word == --* ]] || word=-${word: -1}
        last=$word
        [[ " $values" == *" $word="* ]] && waiting=yes
        ;;
      *)
        if [[ $kind && $kind != *[?*] ]]; then
          kinds=${places[*]:1}
        elif [[ " @NAMES@ help " == *" $word "* ]]; then
          task=$word options='' values='' kinds=''
          _alluxio_provision_task "$task"
        elif [[ $kind != *'*' ]]; then
          kinds=${places[*]:1}
        fi
        ;;
    esac
  done
  read -ra places <<<"$kinds"
  kind=${places[0]:-}
  if [[ $current == --*=* ]]; then
    last=${current%%=*} current=${current#*=} waiting=yes
  fi
  if [[ $waiting ]]; then
    kind=nothing
    for word in $values; do
      [[ $word == "$last="* ]] && kind=${word#*=}
    done
    _alluxio_provision_value "$kind" "$current" "$program" "${line[@]}"
  elif [[ $current == -* ]]; then
    for word in $options; do
      [[ $word == "$current"* ]] && COMPREPLY+=("$word")
    done
  else
    [[ $kind ]] && _alluxio_provision_value "${kind%[?*]}" "$current" "$program" "${line[@]}"
    if [[ ! $kind || $kind == *[?*] ]] && ((!${#COMPREPLY[@]})) && [[ $kind != file* ]]; then
      _alluxio_provision_value task "$current" "$program"
      [[ ! $task && help == "$current"* ]] && COMPREPLY+=(help)
    fi
  fi
}

complete -F _alluxio_provision alluxio-provision
