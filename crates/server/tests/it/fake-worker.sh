#!/bin/sh
# Speaks the protocol of a build process. The tag of the image says what happens; the folder
# $1 is where it meets the test: it leaves notes there and waits at gates (named pipes).
meet=$1
spec=$(cat)
tag=$(printf '%s' "$spec" | sed 's/.*serve-app:\([A-Za-z0-9_.-]*\)".*/\1/')
digest=sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa

log() { printf '{"event":"step_log","step":1,"stream":"stdout","line":"%s"}\n' "$1"; }
completed() { printf '{"result":"completed","digest":"%s"}\n' "$digest"; }
failed() { printf '{"result":"failed","kind":"command","reason":"%s"}\n' "$1"; exit 1; }
note() { printf '%s\n' "$2" > "$meet/$1.tmp" && mv "$meet/$1.tmp" "$meet/$1"; }

printf '{"event":"commit","id":"0123456789abcdef0123456789abcdef01234567"}\n'
printf '{"event":"dockerfile","name":"Dockerfile","text":"FROM scratch\\nCOPY . .\\n"}\n'
printf '{"event":"step_started","step":1,"name":"[stage 1/1] COPY . ."}\n'

case $tag in
ok*)
    printf '{"event":"step_done","step":1,"cached":true,"millis":0,"layer":null}\n'
    printf '{"event":"pushed","reference":"localhost:5000/serve-app:%s","digest":"%s"}\n' "$tag" "$digest"
    completed ;;
gated*)
    log "before the gate"
    note "$tag.started" $$
    read -r _ < "$meet/$tag.gate"
    log "behind the gate"
    completed ;;
fails) failed "the command \`make\` ended with status 2" ;;
crashes) echo "thread 'main' panicked at the disco" >&2; exit 101 ;;
killed) kill -9 $$ ;;
silent) exit 0 ;;
hangs)
    trap '' TERM
    sleep 1000 &
    note "$tag.started" "$$ $!"
    wait
    wait ;;
lingers)
    trap '' TERM
    completed
    sleep 1000 &
    wait
    wait ;;
leaves)
    # Something stays behind and holds the pipes.
    sleep 1000 &
    note "$tag.left" $!
    completed ;;
tells)
    token=$(printf '%s' "$spec" | sed 's/.*"token":"\([^"]*\)".*/\1/')
    note token "$token"
    note environment "$(env)"
    note arguments "$(tr '\0' ' ' < /proc/$$/cmdline)"
    log "cloning https://$token@github.com/org/repo"
    echo "fatal: $token" >&2
    failed "could not read from https://x:$token@github.com/org/repo" ;;
shows) note spec "$spec"; completed ;;
*) failed "the fake worker does not know the tag $tag" ;;
esac
