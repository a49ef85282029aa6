# fish completion for alluxio-provision @VERSION@. Made by alluxio-provision, not to be edited.
#
# Tasks and options are in this file. Names of hosts are asked of the program, which reads the
# inventory and nothing else.

# Of a task: its options, what their values are, and what its words are ("?": may be left out,
# "*": any number).
function __alluxio_provision_task
    switch $argv[1]
@TASKS@
    end
end

function __alluxio_provision_tasks
    printf '%s\t%s\n' \
@DESCRIBED@
end

# Candidates of one kind for the value $argv[2], each behind $argv[3]. Then comes the line so far.
function __alluxio_provision_value
    set -l kind $argv[1]
    set -l value $argv[2]
    set -l before $argv[3]
    set -l line $argv[4..-1]
    switch $kind
        case nothing
        case file
            __fish_complete_path $value | string replace -r '^' -- $before
        case folder
            __fish_complete_directories $value | string replace -r '^' -- $before
        case 'format:*'
            printf '%s\n' $before(string split , (string replace format: '' -- $kind))
        case error-id
            printf '%s\n' $before(string split ' ' '@IDS@')
        case schema
            printf '%s\n' $before(string split ' ' '@SCHEMAS@')
        case topic
            printf '%s\n' $before(string split ' ' '@TOPICS@')
        case '*'
            set -l program (string replace -r '^~' $HOME -- $line[1])
            PYTHONDONTWRITEBYTECODE=1 $program --complete-names $kind "$value" $line[2..-1] 2>/dev/null |
                string replace -r '^' -- $before
    end
end

function __alluxio_provision
    set -l line (commandline -opc)
    set -l current (commandline -ct)
    set -l names (string split ' ' '@NAMES@ help')
    set -g __alluxio_provision_options @BEFORE@
    set -g __alluxio_provision_values @BEFORE_VALUES@
    set -g __alluxio_provision_kinds
    set -l task
    set -l waiting
    set -l last
    for word in $line[2..-1]
        if test -n "$waiting"
            set waiting
            continue
        end
        set -l kind "$__alluxio_provision_kinds[1]"
        switch $word
            case '--'
                return
            case '--*=*'
            case '-*'
                string match -q -- '--*' $word; or set word -(string sub -s -1 -- $word)
                set last $word
                string match -q -- "$word=*" $__alluxio_provision_values; and set waiting yes
            case '*'
                if test -n "$kind"; and not string match -qr '[?*]$' -- $kind
                    set -e __alluxio_provision_kinds[1]
                else if contains -- $word $names
                    set task $word
                    __alluxio_provision_task $task
                else if test -n "$kind"; and not string match -qr '[*]$' -- $kind
                    set -e __alluxio_provision_kinds[1]
                end
        end
    end
    set -l kind "$__alluxio_provision_kinds[1]"
    set -l value "$current"
    set -l before ''
    if string match -q -- '--*=*' $current
        set last (string replace -r '=.*' '' -- $current)
        set value (string replace -r '^[^=]*=' '' -- $current)
        set before "$last="
        set waiting yes
    end
    if test -n "$waiting"
        set kind nothing
        for pair in $__alluxio_provision_values
            string match -q -- "$last=*" $pair; and set kind (string replace -r '^[^=]*=' '' -- $pair)
        end
        __alluxio_provision_value $kind "$value" "$before" $line
    else if string match -q -- '-*' $current
        printf '%s\n' $__alluxio_provision_options
    else
        set -l found
        if test -n "$kind"
            set found (__alluxio_provision_value (string replace -r '[?*]$' '' -- $kind) "$value" '' $line)
            printf '%s\n' $found
        end
        if test -z "$found"; and string match -qr '^$|[?*]$' -- "$kind"; and not string match -q 'file*' -- $kind
            __alluxio_provision_tasks
            test -z "$task"; and printf 'help\tHelp on a group or a task\n'
        end
    end
end

complete -c alluxio-provision -f -a '(__alluxio_provision)'
