#!/bin/sh
# An example of a pool's command: machines of a cloud by its command line tool. It is written for the AWS CLI and `jq`;
# other clouds differ in the three calls only. The contract is in docs/pools.md.
#
# The pool's options: image (with volley and a start script), type, subnet.
set -eu

asked=$(cat)
field() { printf '%s' "$asked" | jq -r "$1 // empty"; }

pool=$(field .pool)
worker=$(field .worker)

# Machines of this pool that are there or coming, by the tags they were made with.
find_machines() {
    aws ec2 describe-instances --output json --filters "Name=tag:volley-pool,Values=$pool" \
        "Name=instance-state-name,Values=pending,running,stopping,stopped" "$@" |
        jq '[.Reservations[].Instances[] | { machine: .InstanceId,
             worker: (.Tags[] | select(.Key == "volley-worker") | .Value) }]'
}

case $(field .action) in
create)
    # The client token makes it safe to ask again: the same token never makes a second machine.
    start="#!/bin/sh
exec volley worker --server $(field .server) --name $worker --pool $pool"
    if ! made=$(aws ec2 run-instances --output json --count 1 --client-token "$worker" \
        --image-id "$(field .options.image)" --instance-type "$(field .options.type)" \
        --subnet-id "$(field .options.subnet)" --user-data "$start" \
        --tag-specifications "ResourceType=instance,Tags=[{Key=volley-pool,Value=$pool},{Key=volley-worker,Value=$worker}]"); then
        # The tool failed; whether the cloud did is not known: 2 says so. 1 would say that nothing was made.
        exit 2
    fi
    printf '%s' "$made" | jq '{ machine: .Instances[0].InstanceId }'
    ;;
destroy)
    machine=$(field .machine)
    [ -n "$machine" ] || machine=$(find_machines "Name=tag:volley-worker,Values=$worker" | jq -r '.[].machine')
    # Gone already is good.
    [ -z "$machine" ] || aws ec2 terminate-instances --instance-ids $machine >/dev/null
    echo '{}'
    ;;
list)
    find_machines | jq '{ machines: . }'
    ;;
*)
    echo "this script does not know what to do" >&2
    exit 1
    ;;
esac
