#!/bin/busybox sh
# The first process of the lab's control domain. It runs the steps one after the other and reports them
# on the second serial port; the module `protocol` reads what is written here.
export PATH=/sbin:/bin:/usr/sbin:/usr/bin HOME=/ LD_LIBRARY_PATH=/lib/x86_64-linux-gnu
/bin/busybox mount -t proc proc /proc
/bin/busybox --install -s /bin
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
# NONCE, STEPS and LIMIT.
. /lab/conf
stty -F /dev/ttyS1 115200 raw -echo
exec 3>/dev/ttyS1 4>/dev/hvc0

say() {
    echo "@$NONCE $*" >&3
}

# hvc0 is written to Xen's console in one piece, in order with Xen's own lines, as long as it is short.
mark() {
    printf '\n@%s:%s@\n' "$NONCE" "$1" >&4
}

stream() {
    say "$1 $2 $(wc -c <"$3")"
    head -c "$LIMIT" "$3" | base64 >&3
}

step() {
    say "begin $1"
    mark "$1b"
    sh "$2" >/tmp/out 2>/tmp/err </dev/null 3>&- 4>&-
    code=$?
    mark "$1e"
    stream out "$1" /tmp/out
    stream err "$1" /tmp/err
    say "end $1 $code"
}

step 0 /lab/setup
number=1
while [ "$number" -le "$STEPS" ]; do
    step "$number" "/lab/steps/$number"
    number=$((number + 1))
done
say "done"
exec 3>&- 4>&-
poweroff -f
