#!/usr/bin/env bash
# One node of a Pacemaker cluster, as process 1 of namespaces of its own: node.sh NAME FOLDER DATA
#
# FOLDER is the cluster's: corosync.conf, the switch of its power (power.sh), the resource agent (ocf/), and for each node a folder that is
# its /run/gemel. DATA holds the node's leg. Everything else that the node writes is gone when its power is.
set -euo pipefail
name=$1 folder=$2 data=$3

hostname "$name"
mkdir -p /run/gemel-data
mount --bind "$data" /run/gemel-data
mount -t tmpfs tmpfs /dev/shm
mkdir -p "$data"
mount --move /run/gemel-data "$data" 2>/dev/null || mount --bind /run/gemel-data "$data"
for place in /run /var/lib/pacemaker /var/lib/corosync /etc/corosync /var/log; do
    mount -t tmpfs tmpfs "$place"
done
mkdir -p /run/crm /run/resource-agents /run/lock /run/corosync /run/gemel /var/log/pacemaker /var/log/corosync \
    /var/lib/pacemaker/{cib,pengine,blackbox,cores}
chown -R hacluster:haclient /var/lib/pacemaker /run/crm /var/log/pacemaker
mount --bind "$folder/$name" /run/gemel
mount --bind "$folder/ocf" /usr/lib/ocf/resource.d
# The cluster's own switch takes the place of an agent that nobody uses.
mount --bind "$folder/power.sh" /usr/sbin/fence_legacy
cp "$folder/corosync.conf" /etc/corosync/

corosync -f >"$folder/$name.corosync.log" 2>&1 &
until corosync-quorumtool >/dev/null 2>&1; do sleep 0.2; done
PCMK_logfile="$folder/$name.pacemaker.log" PCMK_logfacility=none pacemakerd >"$folder/$name.pacemakerd.log" 2>&1 &
wait
