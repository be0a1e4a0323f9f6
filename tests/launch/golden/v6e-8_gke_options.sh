# demo: 8 chips, 1 host (v6e-8)

# once, run it yourself: make it kubectl's cluster
gcloud container clusters get-credentials pods --location=us-west4-a --project=my-project

# once, run it yourself: keep the value of WANDB_API_KEY, a variable of this shell (export WANDB_API_KEY=...)
bash \
    -c \
    ': "${WANDB_API_KEY:?}"; printf %s "$WANDB_API_KEY" | kubectl create secret generic wandb-api-key --from-file=WANDB_API_KEY=/dev/stdin'

# once, run it yourself: create the nodes of a slice, which cost money from now on
gcloud container node-pools create demo-0 \
    --cluster=pods \
    --location=us-west4-a \
    --project=my-project \
    --machine-type=ct6e-standard-8t \
    --num-nodes=1 \
    --spot

# the JobSet
mkdir -p launched
cat > launched/demo.yaml <<'END'
apiVersion: jobset.x-k8s.io/v1alpha2
kind: JobSet
metadata: {name: "demo"}
spec:
  failurePolicy:
    maxRestarts: 0
    rules:
    - name: stop
      action: FailJobSet
      onJobFailureReasons: [PodFailurePolicy]
      onJobFailureMessagePatterns: ['exit code (2|3|130) ']
    - name: preempted
      action: RestartJobSetAndIgnoreMaxRestarts
      onJobFailureReasons: [PodFailurePolicy]
  replicatedJobs:
  - name: slice
    replicas: 1
    template:
      spec:
        parallelism: 1
        completions: 1
        completionMode: Indexed
        backoffLimit: 0
        podFailurePolicy:
          rules:
          - action: FailJob
            onExitCodes: {containerName: train, operator: In, values: [2, 3, 130]}
          - action: FailJob
            onExitCodes: {containerName: train, operator: In, values: [75]}
          - action: FailJob
            onPodConditions: [{type: DisruptionTarget, status: "True"}]
        template:
          spec:
            restartPolicy: Never
            terminationGracePeriodSeconds: 600
            # Else the trainer would be process 1, which ignores SIGTERM until it has a handler.
            shareProcessNamespace: true
            nodeSelector:
              cloud.google.com/gke-tpu-accelerator: tpu-v6e-slice
              cloud.google.com/gke-tpu-topology: 2x4
              cloud.google.com/gke-spot: "true"
            tolerations: [{key: cloud.google.com/gke-spot, operator: Equal, value: "true"}]
            containers:
            - name: train
              image: "ghcr.io/me/switch_jax@sha256:0000000000000000000000000000000000000000000000000000000000000000"
              command:
              - "switch_jax"
              - "doctor"
              - "--multihost"
              - "--gin_file=runs/demo_switch.gin"
              - "--gin.MODEL_DIR=gs://my-bucket/runs/demo"
              - "--gin.MESH_DATA=2"
              - "--gin.MESH_EXPERT=8"
              - "--gin.GROUP_SIZE=64"
              - "--gin.DATA_STREAMS=4"
              - "--gin.MESH_DATA=1"
              env:
              - {"name": "JAX_COMPILATION_CACHE_DIR", "value": "gs://my-bucket/runs/demo/compiled"}
              - {"name": "JAX_PLATFORMS", "value": "tpu,cpu"}
              - {"name": "NOTE", "value": "a=b, $$c"}
              - {"name": "TEAM", "value": "1e3"}
              - {"name": "CONFIRM", "value": "y"}
              - {"name": "WANDB_API_KEY", "valueFrom": {"secretKeyRef": {"name": "wandb-api-key", "key": "WANDB_API_KEY"}}}
              # Of a machine's memory a tenth is left to the node. With less than the request no
              # run works; over the limits the pod ends, and not the node. The disk has logs,
              # traces and copies of data files: checkpoints go to the bucket.
              resources:
                requests: {memory: 17Gi, ephemeral-storage: 10Gi}
                limits: {google.com/tpu: "8", memory: 1296Gi, ephemeral-storage: 40Gi}
END

# gives kubectl access to the cluster
gcloud container clusters get-credentials pods --location=us-west4-a --project=my-project

# starts the job, or changes nothing if it already runs
kubectl apply --filename=launched/demo.yaml --context=gke_my-project_us-west4-a_pods

# repeated every 10 s until all pods run
kubectl get pods \
    --selector=jobset.sigs.k8s.io/jobset-name=demo \
    --context=gke_my-project_us-west4-a_pods \
    --field-selector=status.phase=Running \
    --output=name

# prints the output of all hosts; with --since-time=LAST_LINE after a lost connection
kubectl logs \
    --selector=jobset.sigs.k8s.io/jobset-name=demo \
    --container=train \
    --context=gke_my-project_us-west4-a_pods \
    --prefix \
    --ignore-errors \
    --max-log-requests=5 \
    --follow \
    --tail=-1

# prints JobSet if it exists, and Completed or Failed if it has ended
kubectl get jobset demo \
    --context=gke_my-project_us-west4-a_pods \
    --ignore-not-found \
    --output='jsonpath={.kind} {.status.terminalState}'

# only if it has failed: the exit codes
kubectl get pods \
    --selector=jobset.sigs.k8s.io/jobset-name=demo \
    --context=gke_my-project_us-west4-a_pods \
    --output='jsonpath={.items[*].status.containerStatuses[*].state.terminated.exitCode}'

# only if it has failed: the last lines
kubectl logs \
    --selector=jobset.sigs.k8s.io/jobset-name=demo \
    --container=train \
    --context=gke_my-project_us-west4-a_pods \
    --prefix \
    --ignore-errors \
    --max-log-requests=5 \
    --tail=20

# later, run it yourself: ends the job with a checkpoint, or deletes one that has ended
kubectl delete jobset demo --context=gke_my-project_us-west4-a_pods

# later, run it yourself: gives a slice back
gcloud container node-pools delete demo-0 \
    --cluster=pods \
    --location=us-west4-a \
    --project=my-project \
    --quiet

# later, run it yourself: deletes the cluster, if it has no other job
gcloud container clusters delete pods --location=us-west4-a --project=my-project
