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
traced*)
    printf '{"event":"step_done","step":1,"cached":true,"millis":0,"layer":null}\n'
    printf '{"event":"step_started","step":2,"name":"[stage 1/2] RUN make"}\n'
    printf '{"event":"step_done","step":2,"cached":false,"millis":250,"layer":null}\n'
    printf '{"event":"step_started","step":3,"name":"exporting to localhost:5000/serve-app:%s"}\n' "$tag"
    printf '{"event":"step_progress","step":3,"item":"abc","current":400,"total":1000,"state":"moving"}\n'
    printf '{"event":"step_progress","step":3,"item":"abc","current":1000,"total":1000,"state":"done"}\n'
    printf '{"event":"step_progress","step":3,"item":"def","current":24,"total":24,"state":"mounted"}\n'
    printf '{"event":"step_done","step":3,"cached":false,"millis":50,"layer":null}\n'
    completed ;;
steps*)
    # Three steps: one that ran, one that was known, one that fails for some tags.
    layer=sha256:bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb
    printf '{"event":"step_done","step":1,"cached":true,"millis":0,"layer":null}\n'
    printf '{"event":"step_started","step":2,"name":"[stage 1/1] RUN make"}\n'
    printf '{"event":"step_done","step":2,"cached":false,"millis":1234,"layer":{"digest":"%s","size":4096,"diff_id":"%s"}}\n' $layer $layer
    printf '{"event":"pushed","reference":"localhost:5000/serve-app:%s","digest":"%s"}\n' "$tag" "$digest"
    completed ;;
floods)
    # More than any log may hold.
    number=0
    while [ $number -lt 3000 ]; do
        log "line $number of a build that talks too much"
        number=$((number + 1))
    done
    completed ;;
half)
    # One registry took the image and one did not.
    printf '{"event":"pushed","reference":"localhost:5000/serve-app:%s","digest":"%s"}\n' "$tag" "$digest"
    printf '{"result":"failed","kind":"registry","reason":"push gcr.io/p/a:half: denied"}\n'
    exit 1 ;;
eats)
    # 200 MB in a variable of the shell.
    eaten=$(head -c 200000000 /dev/zero | tr '\0' x)
    note "$tag.started" "$$ ${#eaten}"
    sleep 1000 ;;
tree)
    # A process, its child and its grandchild, none of which wants to end.
    trap '' TERM
    sh -c 'sleep 1000 & echo $! > "$1/tree.grandchild"; wait; wait' sh "$meet" &
    child=$!
    until [ -s "$meet/tree.grandchild" ]; do sleep 0.01; done
    note "$tag.started" "$$ $child $(cat "$meet/tree.grandchild")"
    wait
    wait ;;
takes)
    cp "$(printf '%s' "$spec" | sed 's/.*"file":"\([^"]*\)".*/\1/')" "$meet/context"
    note spec "$spec"
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
tells*)
    token=$(printf '%s' "$spec" | sed 's/.*"token":"\([^"]*\)".*/\1/')
    note token "$token"
    note environment "$(env)"
    note arguments "$(tr '\0' ' ' < /proc/$$/cmdline)"
    log "cloning https://$token@github.com/org/repo"
    echo "fatal: $token" >&2
    failed "could not read from https://x:$token@github.com/org/repo" ;;
shows*) note spec "$spec"; completed ;;
*) failed "the fake worker does not know the tag $tag" ;;
esac
