# Runs commands inside a lab host on behalf of the lab. One request a line on the virtio port
# lab.control; each request runs in its own process group, any number at once.
#
#   run ID host|init STREAM BASE64  run the script in the machine's root (host) or in the initramfs
#                                   (init); STREAM is - or the number of a port for its output
#   kill ID SIGNAL                  signal the process group of a request
#
# Answers: "hello", and for each run, when it has ended, "done ID STATUS OUT ERR" followed by that
# many bytes of standard output and of standard error (each cut at 8 MiB).
#
# Finished jobs go through one FIFO to one writer, so that answers never mix.

root="${LAB_ROOT:-/host}" # the machine's root, as seen from here
jobs="$root/run/lab"
limit=8388608

port() { # port NAME: its device
  local folder
  for folder in /sys/class/virtio-ports/*; do
    [ "$(cat "$folder/name" 2>/dev/null)" = "$1" ] && echo "/dev/${folder##*/}" && return
  done
}

enter() { # enter ID ROOT: becomes the job's script, leader of a process group of its own
  if [ "$2" = host ]; then
    exec setsid chroot "$root" env -i HOME=/root LANG=C.UTF-8 TMPDIR=/run/tmp \
      PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:/run/busybox \
      /bin/sh "/run/lab/$1/script" </dev/null
  else
    exec setsid sh "$jobs/$1/script" </dev/null
  fi
}

run_job() { # run_job ID ROOT STREAM
  local job="$jobs/$1" out status
  : >"$job/out"
  : >"$job/err"
  if [ "$3" = - ]; then
    enter "$1" "$2" >"$job/out" 2>"$job/err" &
  else
    out="$(port "lab.stream$3")"
    enter "$1" "$2" >"$out" 2>&1 &
  fi
  echo $! >"$job/pid"
  wait $!
  status=$?
  # The mark tells the reader of the stream that all output has passed, and that the port is free
  # again: a port opens once, so a child that outlives the job keeps the mark out.
  [ "$3" = - ] || printf '\n\036end %s\n' "$1" >"$out" 2>/dev/null
  echo "$1 $status" >"$jobs/finished"
}

answer() { # reads the FIFO for ever, writes answers to the control port (descriptor 3)
  local id status out err
  while read -r id status; do
    out=$(stat -c %s "$jobs/$id/out")
    err=$(stat -c %s "$jobs/$id/err")
    [ "$out" -le $limit ] || out=$limit
    [ "$err" -le $limit ] || err=$limit
    echo "done $id $status $out $err" >&3
    [ "$out" = 0 ] || head -c "$out" "$jobs/$id/out" >&3
    [ "$err" = 0 ] || head -c "$err" "$jobs/$id/err" >&3
    rm -rf "${jobs:?}/$id"
  done
}

mkfifo "$jobs/finished"
exec 3<>"$(port lab.control)" 4<>"$jobs/finished"
answer <&4 &
echo hello >&3

while :; do
  if ! read -r verb id a b c <&3; then
    sleep 0.2 # nobody is at the other end of the port at the moment
    continue
  fi
  case "$verb" in
    run)
      mkdir -p "$jobs/$id"
      echo "$c" | base64 -d >"$jobs/$id/script"
      run_job "$id" "$a" "$b" 3<&- 4<&- &
      ;;
    kill)
      kill -"$a" -"$(cat "$jobs/$id/pid" 2>/dev/null)" 2>/dev/null
      ;;
  esac
done
