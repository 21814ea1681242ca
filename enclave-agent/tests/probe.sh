# Tries to get out of a workspace. Every line says what was tried and how it went; the exit status
# is the number of attempts that should have failed and did not. Run inside a workspace.
bad=0
ok() { echo "ok    $*"; }
hole() { echo "HOLE  $*"; bad=$((bad + 1)); }
refused() { # WHAT COMMAND...: the command must fail
  what=$1; shift
  if "$@" > /dev/null 2>&1; then hole "$what"; else ok "$what"; fi
}
call() { # WHAT NUMBER EXPECTED-ERRNO ARGS...: the system call must fail, with this errno
  what=$1 number=$2 errno=$3; shift 3
  got=$(perl -e '
    my ($n, @a) = @ARGV; @a = map { $_ =~ /^-?\d+$/ ? $_ + 0 : $_ } @a;
    my $r = syscall($n + 0, @a); print $r == -1 ? $! + 0 : "done";' "$number" "$@" 2>&1)
  if [ "$got" = "$errno" ]; then ok "$what"; else hole "$what: $got instead of errno $errno"; fi
}

# Who one is.
[ "$(id -u)" = 1000 ] && ok "not root" || hole "uid $(id -u)"
grep -q '^CapEff:.*0000000000000000' /proc/self/status && ok "no effective capabilities" || hole "capabilities"
grep -q '^CapBnd:.*0000000000000000' /proc/self/status && ok "no capabilities to come" || hole "bounding set"
grep -q '^NoNewPrivs:.*1' /proc/self/status && ok "no new privileges" || hole "new privileges"
grep -q '^Seccomp:.*2' /proc/self/status && ok "a filter is in force" || hole "no filter"
[ "$(cat /proc/sys/kernel/hostname)" = "$(hostname)" ] && ok "a host name of its own" || hole "hostname"

# PID 1 and other processes.
refused "kill PID 1" kill -9 1
refused "signal PID 1" kill -0 1
refused "read PID 1's memory" head -c1 /proc/1/mem
refused "read PID 1's environment" cat /proc/1/environ
refused "list PID 1's descriptors" ls /proc/1/fd/
refused "take PID 1's socket" cat /proc/1/fd/0
refused "enter PID 1's root" ls /proc/1/root/
[ "$(ls -d /proc/[0-9]* | wc -l)" -lt 20 ] && ok "no processes of the host" || hole "processes of the host"
call "ptrace(ATTACH, 1)" 101 1 16 1 0 0
kill -CONT 1 2> /dev/null # where that could be done, PID 1 has stopped
call "process_vm_readv" 310 1 1 0 0 0 0 0
call "pidfd_getfd" 438 1 0 0 0

# System calls that lead out.
call "mount" 165 1 none /tmp tmpfs 0 0
call "umount2" 166 1 /data 2
call "pivot_root" 155 1 / /
call "chroot" 161 1 /tmp
call "unshare(NEWUSER)" 272 1 268435456
call "unshare(NEWNS)" 272 1 131072
call "setns" 308 1 0 0
call "clone(NEWUSER)" 56 38 268435473 0 0 0 0
call "clone3" 435 38 0 0
call "bpf" 321 1 0 0 0
call "request_key" 249 1 0 0 0 0
call "io_uring_enter" 426 1 0 0 0 0 0
call "io_uring_register" 427 1 0 0 0 0
call "move_mount" 429 1 0 0 0 0 0
call "fsconfig" 431 1 0 0 0 0 0
call "fsmount" 432 1 0 0 0
call "mount_setattr" 442 1 0 0 0 0 0
call "name_to_handle_at" 303 1 0 0 0 0 0
call "process_vm_writev" 311 1 1 0 0 0 0 0
call "process_madvise" 440 1 0 0 0 0 0
call "kcmp" 312 1 1 1 0 0 0
call "fanotify_init" 300 1 0 0
call "finit_module" 313 1 0 0 0
call "delete_module" 176 1 x 0
call "kexec_file_load" 320 1 0 0 0 0 0
call "swapon" 167 1 x 0
call "acct" 163 1 0
call "quotactl" 179 1 0 0 0 0
call "iopl" 172 1 3
call "ioperm" 173 1 0 1 1
call "modify_ldt" 154 1 0 0 0
call "syslog" 103 1 10 0 0
call "vhangup" 153 1
call "adjtimex" 159 1 0
call "clock_settime" 227 1 0 0
call "setdomainname" 171 1 x 1
call "keyctl" 250 1 0 0
call "add_key" 248 1 0 0 0 0 0
call "io_uring_setup" 425 1 1 0
call "userfaultfd" 323 1 0
call "perf_event_open" 298 1 0 0 0 0 0
call "open_by_handle_at" 304 1 0 0 0
call "open_tree" 428 1 0 0 0
call "fsopen" 430 1 0 0
call "init_module" 175 1 0 0 0
call "kexec_load" 246 1 0 0 0 0
call "reboot" 169 1 0 0 0 0
call "sethostname" 170 1 x 1
call "settimeofday" 164 1 0 0
call "personality(ADDR_NO_RANDOMIZE)" 135 38 262144
call "socket(AF_INET, SOCK_RAW)" 41 1 2 3 1
call "socket(AF_INET6, SOCK_RAW)" 41 1 10 3 58
call "socket(AF_ALG)" 41 38 38 5 0
call "socket(AF_BLUETOOTH)" 41 38 31 3 1
call "socket(AF_TIPC)" 41 38 30 1 0
call "socket(NETLINK_NETFILTER)" 41 38 16 3 12
call "socket(AF_VSOCK)" 41 38 40 1 0
call "socket(AF_PACKET)" 41 38 17 3 0
call "socket(NETLINK_AUDIT)" 41 38 16 3 9
call "ioctl(TIOCSTI)" 16 38 0 21522 0
call "an unknown call" 999 38 0

# Files.
for dir in / /usr /usr/bin /etc /data /run /dev /proc/sys /.sekisho /home; do
  refused "write in $dir" touch "$dir/x"
done
for device in /dev/kmsg /dev/mem /dev/sda /dev/vda /dev/fuse /dev/kvm; do
  refused "read $device" head -c1 "$device"
done
refused "make a device" mknod /tmp/null c 1 3
refused "make the host's disk a device" mknod /tmp/disk b 254 0
refused "write sysctl" sh -c 'echo 1 > /proc/sys/kernel/core_pattern'
refused "write sysrq" sh -c 'echo b > /proc/sysrq-trigger'
[ -z "$(head -c1 /proc/kcore 2>/dev/null)" ] && ok "no kernel memory" || hole "kcore"
[ -z "$(head -c1 /proc/keys 2>/dev/null)" ] && ok "no kernel keys" || hole "keys"
[ ! -e /sys/kernel ] && ok "no sysfs" || hole "sysfs"
grep -q shadow /etc/* 2>/dev/null; [ ! -e /etc/shadow ] && ok "no shadow file" || hole "shadow"
[ ! -e /root ] && [ ! -e /var ] && ok "none of the host's other directories" || hole "host directories"
cp /usr/bin/id /tmp/id && chmod u+s /tmp/id && [ "$(/tmp/id -u)" = 1000 ] && ok "set-uid means nothing" || hole "set-uid"
[ "$(find / -xdev -writable ! -type l ! -path '/proc/*' 2>/dev/null | grep -cv '^/\(dev\|tmp\|home\|proc\)')" = 0 ] \
  && ok "nothing else is writable" || hole "writable: $(find / -xdev -writable ! -type l 2>/dev/null | head -3)"

# Ways out through names and descriptors.
[ "$(ls /proc/self/fd | wc -l)" -le 4 ] && ok "no descriptors from outside" || hole "descriptors: $(ls -l /proc/self/fd)"
outside=
for fd in /proc/[0-9]*/fd/*; do
  case "$(readlink "$fd" 2>/dev/null)" in
    ''|pipe:*|/dev/null|/dev/pts/*|/proc/*|/home/*|/tmp/*|anon_inode:*) ;;
    *) outside="$outside $fd -> $(readlink "$fd")" ;;
  esac
done
[ -z "$outside" ] && ok "no process holds anything from outside" || hole "held from outside:$outside"
for link in /proc/1/root /proc/1/cwd /proc/1/exe /proc/1/ns/mnt /proc/1/ns/user; do
  ln -sf "$link" /tmp/out
  refused "through a link to $link" head -c1 /tmp/out/etc/passwd
done
refused "up from the home" ls ../../../../../../run/sekisho
refused "up from the root" ls /../../run/sekisho
refused "hard link to another's file" ln /usr/bin/passwd /tmp/passwd
[ -z "$(find /run /dev /tmp /home / -xdev -type s 2>/dev/null)" ] && ok "no sockets of anybody" || hole "sockets"
[ "$(grep -c @ /proc/net/unix)" = 0 ] && ok "no abstract sockets" || hole "abstract sockets: $(cat /proc/net/unix)"
[ "$(ls -A /home)" = "$(id -un)" ] && ok "no home but one's own" || hole "homes: $(ls -A /home)"
[ "$(awk '{print $5}' /proc/self/mountinfo | grep -c sekisho)" -le 1 ] && ok "no mounts of the agent" || hole "mounts: $(cat /proc/self/mountinfo)"
[ ! -e /sys/fs/cgroup/cgroup.procs ] && [ -z "$(find / -xdev -name cgroup.procs -writable 2>/dev/null)" ] && ok "no control groups" || hole "control groups"
refused "leave the memory limit" sh -c 'echo $$ > /sys/fs/cgroup/memory/cgroup.procs || echo $$ > /sys/fs/cgroup/cgroup.procs'
refused "a release agent" sh -c 'echo /tmp/x > /sys/fs/cgroup/release_agent'
for sysctl in kernel/modprobe kernel/hotplug vm/overcommit_memory net/ipv4/ip_forward fs/binfmt_misc/register; do
  refused "write /proc/sys/$sysctl" sh -c "echo /tmp/x > /proc/sys/$sysctl"
done
refused "rise above the others" perl -e 'exit(setpriority(0, 0, getpriority(0, 0) - 1) ? 0 : 1)'
refused "be killed later than PID 1" sh -c 'echo -900 > /proc/self/oom_score_adj'
refused "more open files than allowed" bash -c 'ulimit -Hn 1000000'
refused "dump cores" bash -c 'ulimit -Hc unlimited'
refused "write the map of users" sh -c 'echo 0 0 1 > /proc/self/uid_map'
refused "another user" perl -e '$> = 0; exit($> == 0 ? 0 : 1)'
refused "another group" perl -e '$) = "0 0"; exit($) =~ /^0/ ? 0 : 1)'
[ "$(grep -E '^Groups:' /proc/self/status | wc -w)" -le 3 ] && ok "no groups but its own" || hole "groups"

# Network.
[ "$(grep -c : /proc/net/dev)" = 2 ] && grep -q lo: /proc/net/dev && grep -q barrier0: /proc/net/dev &&
  ok "only lo and the barrier" || hole "interfaces"
refused "a route out" bash -c 'echo > /dev/tcp/192.0.2.1/80'
refused "a route out over UDP" bash -c 'exec 3> /dev/udp/192.0.2.1/53; echo >&3; sleep 0.3; echo >&3'
refused "the host's broker" bash -c 'echo > /dev/tcp/127.0.0.1/2222'

exit "$bad"
