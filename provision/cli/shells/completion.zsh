#compdef alluxio-provision
# zsh completion for alluxio-provision @VERSION@. Made by alluxio-provision, not to be edited.
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

_alluxio_provision_tasks() {
  local -a tasks=(
@DESCRIBED@
  )
  _describe -t tasks task tasks
}

# Candidates of one kind for the value $2. The rest is the line so far.
_alluxio_provision_value() {
  local kind=$1 value=$2 program=$3
  shift 3
  local -a some=()
  case $kind in
    nothing) _message 'a value' ; return ;;
    file) _files; return ;;
    folder) _files -/; return ;;
    format:*) some=(${(s:,:)kind#format:}) ;;
    error-id) some=(@IDS@) ;;
    schema) some=(@SCHEMAS@) ;;
    topic) some=(@TOPICS@) ;;
    *)
      local names
      names=$(PYTHONDONTWRITEBYTECODE=1 $program --complete-names $kind "$value" "$@" 2>/dev/null)
      some=(${(f)names})
      ;;
  esac
  compadd -- $some
}

_alluxio_provision() {
  local program=${words[1]/#\~/$HOME}
  local options='@BEFORE@' values='@BEFORE_VALUES@' kinds='' task='' waiting='' last='' word kind
  local -a line=("${(@)words[2,CURRENT-1]}") places=()
  local current=${words[CURRENT]}
  for word in "${(@)line}"; do
    if [[ -n $waiting ]]; then
      waiting=''
      continue
    fi
    places=(${=kinds}) kind=${places[1]:-}
    case $word in
      (--) return ;;
      (--*=*) ;;
      (-*)
        [[ $word == --* ]] || word=-${word[-1]}
        last=$word
        [[ " $values" == *" $word="* ]] && waiting=yes
        ;;
      (*)
        if [[ -n $kind && $kind != *[?*] ]]; then
          kinds=${places[2,-1]}
        elif [[ " @NAMES@ help " == *" $word "* ]]; then
          task=$word options='' values='' kinds=''
          _alluxio_provision_task $task
        elif [[ $kind != *'*' ]]; then
          kinds=${places[2,-1]}
        fi
        ;;
    esac
  done
  places=(${=kinds}) kind=${places[1]:-}
  if [[ $current == --*=* ]]; then
    last=${current%%=*} current=${current#*=} waiting=yes
    compset -P '--*='
  fi
  if [[ -n $waiting ]]; then
    kind=nothing
    for word in ${=values}; do
      [[ $word == $last=* ]] && kind=${word#*=}
    done
    _alluxio_provision_value $kind "$current" $program "${(@)line}"
  elif [[ $current == -* ]]; then
    compadd -- ${=options}
  else
    if [[ -n $kind ]] && _alluxio_provision_value ${kind%[?*]} "$current" $program "${(@)line}"; then
      return
    fi
    if [[ -z $kind || ( $kind == *[?*] && $kind != file* ) ]]; then
      _alluxio_provision_tasks
      [[ -z $task ]] && compadd -- help
    fi
  fi
}

if [[ $funcstack[1] == _alluxio_provision ]]; then
  _alluxio_provision "$@"
else
  compdef _alluxio_provision alluxio-provision
fi
