#!/bin/bash
# The first process of a host of the LAN (see lan.py), in namespaces of its own: network, processes, mounts, host name, IPC.
#   host.sh NAME ADDRESS FOLDER KEPT...
# FOLDER is the LAN's; KEPT are paths below /tmp or /root that stay visible when those become private.
set -euo pipefail
name=$1 address=$2 folder=$3; shift 3
mine=$folder/$name
mkdir -p "$mine"/{tmp,root/.ssh,log}
chmod 1777 "$mine/tmp"; chmod 700 "$mine/root" "$mine/root/.ssh"

# Files: private /tmp, /root and /dev/shm; /mnt/shared is the same on all hosts and plays the network's file server.
mount --make-rprivate /
for kept in "$@"; do
  mkdir -p "$mine$kept"
  mount --bind "$kept" "$mine$kept"
done
mount -t tmpfs -o size=4g tmpfs /dev/shm
mkdir -p /mnt/shared /run/sshd
mount --bind "$folder/shared" /mnt/shared
mount --bind "$folder/hosts" /etc/hosts
: > "$mine/resolv.conf"
mount --bind "$mine/resolv.conf" "$(readlink -f /etc/resolv.conf)" || true   # no name server: look-ups fail at once
mount --rbind "$mine/root" /root
mount --rbind "$mine/tmp" /tmp
hostname "$name"

# Network: the laptop owns the switch, every other host is given a cable to it by lan.py.
ip link set lo up
if [ "$name" = laptop ]; then
  ip link add switch0 type bridge
  ip addr add "$address/24" dev switch0
  ip link set switch0 up
else
  for _ in $(seq 200); do ip link show "to-$name" > /dev/null 2>&1 && break; sleep 0.05; done
  ip link set "to-$name" name eth0
  ip addr add "$address/24" dev eth0
  ip link set eth0 up
  ip route add default via "${address%.*}.1"   # Ray finds its own address by the route to the outside; nothing is sent
  /usr/sbin/sshd -D -e -f "$mine/sshd_config" > "$mine/log/sshd" 2>&1 &
fi
touch "$mine/ready"
while :; do wait -n || sleep 0.2; done   # reaps orphans: to Ray's workers a raylet that nobody waited for looks alive
