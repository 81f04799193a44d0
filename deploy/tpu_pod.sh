#!/usr/bin/env bash
# Training on a TPU pod slice, one process a host; run this at your desk, with gcloud:
#
#   TPU=mypod ZONE=us-east5-a deploy/tpu_pod.sh --config configs/text.py --workdir /mnt/shared/runs/mine
#
# The program must be installed on every host, in ~/transformer with a virtual environment in .venv:
#
#   gcloud compute tpus tpu-vm ssh "$TPU" --zone "$ZONE" --worker=all --command \
#     'git clone REPOSITORY transformer && cd transformer && python3 -m venv .venv && .venv/bin/pip install -e ".[tpu]"'
#
# Who is which process is read from the pod's metadata. The folder of the run must be one that all hosts
# see (a mounted disk, NFS, gcsfuse). Lost processes are started again, all together; see docs/clusters.md.
set -u
: "${TPU:?name of the TPU}" "${ZONE:?its zone}"
printf -v options ' %q' "$@"

for ((start = 1; start <= ${STARTS:-20}; start++)); do
    code=0
    gcloud compute tpus tpu-vm ssh "$TPU" --zone "$ZONE" --worker=all \
        --command "cd transformer && .venv/bin/transformer train$options" || code=$?
    # 0: done; 2 to 5: for a person to mend; 130: Ctrl-C. What else ends a run (6, 75, ssh's 255), another start continues.
    case $code in
        0 | 2 | 3 | 4 | 5 | 130) break ;;
    esac
    echo "start $start ended with code $code" >&2
    sleep "${PAUSE:-10}"
done
exit "$code"
