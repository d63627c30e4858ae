# Sourced: a running guest, driven through the console that tests/guest/init serves.
# shellcheck shell=bash

# guest_start LOG COMMAND...: starts the VMM with its console on two pipes; what it says on stderr goes to LOG.
# Sets guest_pid. The guest's kernel command line must hold "ringwire.driven".
guest_start() {
    local log=$1 pipes
    shift
    pipes=$(mktemp -d)
    mkfifo "$pipes/in" "$pipes/out"
    # Opened for both ways, so that neither opening waits for the other end.
    exec {guest_in}<>"$pipes/in" {guest_out}<>"$pipes/out"
    "$@" <"$pipes/in" >"$pipes/out" 2>"$log" &
    guest_pid=$!
    guest_console=
    rm -r "$pipes"
}

# guest_said: the last lines of the console, for a message.
guest_said() { tail -n 15 <<<"$guest_console" | sed 's/^/    console: /'; }

# guest_line SECONDS: reads one line of the console into guest_text; fails when the time is up or the VMM is gone.
guest_line() {
    local deadline=$((SECONDS + $1)) part line=
    # A read that times out hands over what there is of the line: it is the beginning of the next one's.
    while ! IFS= read -r -t 1 -u "$guest_out" part; do
        line+=$part
        kill -0 "$guest_pid" 2>/dev/null || return 1
        ((SECONDS < deadline)) || return 1
    done
    line+=$part
    guest_text=${line%$'\r'}
    guest_console+=$guest_text$'\n'
}

# guest_ready SECONDS: waits until the guest takes commands; guest_uptime is then the kernel's time, in seconds.
guest_ready() {
    local deadline=$((SECONDS + $1))
    while guest_line $((deadline - SECONDS)); do
        if [[ $guest_text == *"ringwire-guest: ready"* ]]; then
            # shellcheck disable=SC2034 # for the caller
            guest_uptime=$(sed -n 's/.*after \([0-9.]*\) s.*/\1/p' <<<"$guest_text")
            return 0
        fi
    done
    return 1
}

# guest_run SECONDS COMMAND: runs one line of shell in the guest; prints its output, returns its status (255: no answer).
guest_run() {
    local deadline=$((SECONDS + $1))
    printf '%s\n' "$2" >&"$guest_in"
    while guest_line $((deadline - SECONDS)); do
        [[ $guest_text =~ ^ringwire-guest:\ status\ ([0-9]+)$ ]] && return "${BASH_REMATCH[1]}"
        printf '%s\n' "$guest_text"
    done
    return 255
}

# guest_stop SECONDS: switches the guest off and waits for the VMM; its status, or 255 when it had to be killed.
guest_stop() {
    local deadline=$((SECONDS + $1))
    printf 'poweroff -f\n' >&"$guest_in"
    while kill -0 "$guest_pid" 2>/dev/null; do
        # Read on: a full pipe would stop the VMM.
        guest_line 1 || true
        if ((SECONDS >= deadline)); then
            kill -KILL "$guest_pid"
            wait "$guest_pid" 2>/dev/null || true
            return 255
        fi
    done
    wait "$guest_pid"
}
