#!/bin/sh
# A power switch, as Pacemaker's fencing asks it: a file says which node is to be off, and another one that it is.
folder=FOLDER
while read -r line; do
    case $line in
    action=*) action=${line#*=} ;;
    nodename=* | port=* | plug=*) node=${line#*=} ;;
    esac
done
case $action in
metadata)
    cat <<END
<?xml version="1.0"?>
<resource-agent name="power" shortdesc="The switch of a test's nodes">
<parameters>
<parameter name="action" required="1"><content type="string" default="off"/></parameter>
<parameter name="port" required="0"><content type="string"/></parameter>
</parameters>
<actions><action name="off"/><action name="monitor"/><action name="metadata"/><action name="status"/></actions>
</resource-agent>
END
    ;;
off)
    touch "$folder/$node.off"
    left=300
    until [ -e "$folder/$node.is-off" ]; do
        left=$((left - 1))
        [ "$left" -gt 0 ] || exit 1
        sleep 0.1
    done
    ;;
monitor | status) ;;
*) exit 1 ;;
esac
