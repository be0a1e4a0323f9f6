# base: 1,024 chips, 256 hosts (4xv5e-256)

# once, run it yourself: build the image of switch_jax, from a checkout
docker build \
    --platform=linux/amd64 \
    --file=launch/Dockerfile \
    --tag=us-docker.pkg.dev/my-project/images/switch_jax:1 \
    .

# once, run it yourself: push the image to where the hosts pull it from
docker push us-docker.pkg.dev/my-project/images/switch_jax:1

# once, run it yourself: create the nodes of a slice, which cost money from now on
gcloud container node-pools create base-0 \
    --cluster=pods \
    --location=us-west4-a \
    --project=my-project \
    --machine-type=ct5lp-hightpu-4t \
    --tpu-topology=16x16 \
    --num-nodes=64

# once, run it yourself: create the nodes of a slice, which cost money from now on
gcloud container node-pools create base-1 \
    --cluster=pods \
    --location=us-west4-a \
    --project=my-project \
    --machine-type=ct5lp-hightpu-4t \
    --tpu-topology=16x16 \
    --num-nodes=64

# once, run it yourself: create the nodes of a slice, which cost money from now on
gcloud container node-pools create base-2 \
    --cluster=pods \
    --location=us-west4-a \
    --project=my-project \
    --machine-type=ct5lp-hightpu-4t \
    --tpu-topology=16x16 \
    --num-nodes=64

# once, run it yourself: create the nodes of a slice, which cost money from now on
gcloud container node-pools create base-3 \
    --cluster=pods \
    --location=us-west4-a \
    --project=my-project \
    --machine-type=ct5lp-hightpu-4t \
    --tpu-topology=16x16 \
    --num-nodes=64

# the JobSet
mkdir -p launched
cat > launched/base.yaml <<'END'
apiVersion: jobset.x-k8s.io/v1alpha2
kind: JobSet
metadata: {name: "base", annotations: {alpha.jobset.sigs.k8s.io/exclusive-topology: cloud.google.com/gke-nodepool}}
spec:
  failurePolicy:
    maxRestarts: 1000
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
    replicas: 4
    template:
      spec:
        parallelism: 64
        completions: 64
        completionMode: Indexed
        backoffLimit: 0
        podFailurePolicy:
          rules:
          - action: FailJob
            onExitCodes: {containerName: train, operator: In, values: [2, 3, 130]}
          - action: FailJob
            onExitCodes: {containerName: train, operator: In, values: [75]}
        template:
          spec:
            restartPolicy: Never
            terminationGracePeriodSeconds: 600
            # Else the trainer would be process 1, which ignores SIGTERM until it has a handler.
            shareProcessNamespace: true
            serviceAccountName: "trainer"
            nodeSelector:
              cloud.google.com/gke-tpu-accelerator: tpu-v5-lite-podslice
              cloud.google.com/gke-tpu-topology: 16x16
            containers:
            - name: train
              image: "us-docker.pkg.dev/my-project/images/switch_jax:1"
              command:
              - "python"
              - "-m"
              - "switch_jax.launch.restart_limit"
              - "gs://my-bucket/runs/base"
              - "3"
              - "--"
              - "switch_jax"
              - "train"
              - "--multihost"
              - "--gin_file=models/switch_base.gin"
              - "--gin_file=runs/pretrain.gin"
              - "--gin.MODEL_DIR=gs://my-bucket/runs/base"
              - "--gin.MIXTURE_OR_TASK_NAME=c4_span_corruption"
              - "--gin.TRAIN_STEPS=100000"
              - "--gin.MESH_EXPERT=128"
              - "--gin.GROUP_SIZE=1024"
              - "--gin.DECODER_GROUP_SIZE=256"
              - "--gin.DATA_STREAMS=256"
              - "--tfds_data_dir=gs://my-bucket/tfds"
              env:
              - {"name": "JAX_COMPILATION_CACHE_DIR", "value": "gs://my-bucket/runs/base/compiled"}
              - {"name": "JAX_PLATFORMS", "value": "tpu,cpu"}
              - {"name": "LIBTPU_INIT_ARGS", "value": "--xla_tpu_enable_data_parallel_all_reduce_opt=true --xla_tpu_data_parallel_opt_different_sized_ops=true"}
              # Of a machine's memory a tenth is left to the node. With less than the request no
              # run works; over the limits the pod ends, and not the node. The disk has logs,
              # traces and copies of data files: checkpoints go to the bucket.
              resources:
                requests: {memory: 17Gi, ephemeral-storage: 10Gi}
                limits: {google.com/tpu: "4", memory: 172Gi, ephemeral-storage: 40Gi}
END

# gives kubectl access to the cluster
gcloud container clusters get-credentials pods --location=us-west4-a --project=my-project

# starts the job, or changes nothing if it already runs
kubectl apply --filename=launched/base.yaml --context=gke_my-project_us-west4-a_pods

# repeated every 10 s until all pods run
kubectl get pods \
    --selector=jobset.sigs.k8s.io/jobset-name=base \
    --context=gke_my-project_us-west4-a_pods \
    --field-selector=status.phase=Running \
    --output=name

# prints the output of all hosts; with --since-time=LAST_LINE after a lost connection
kubectl logs \
    --selector=jobset.sigs.k8s.io/jobset-name=base \
    --container=train \
    --context=gke_my-project_us-west4-a_pods \
    --prefix \
    --ignore-errors \
    --max-log-requests=256 \
    --follow \
    --tail=-1

# prints JobSet if it exists, and Completed or Failed if it has ended
kubectl get jobset base \
    --context=gke_my-project_us-west4-a_pods \
    --ignore-not-found \
    --output='jsonpath={.kind} {.status.terminalState}'

# only if it has failed: the exit codes
kubectl get pods \
    --selector=jobset.sigs.k8s.io/jobset-name=base \
    --context=gke_my-project_us-west4-a_pods \
    --output='jsonpath={.items[*].status.containerStatuses[*].state.terminated.exitCode}'

# only if it has failed: the last lines
kubectl logs \
    --selector=jobset.sigs.k8s.io/jobset-name=base \
    --container=train \
    --context=gke_my-project_us-west4-a_pods \
    --prefix \
    --ignore-errors \
    --max-log-requests=256 \
    --tail=20

# later, run it yourself: ends the job with a checkpoint, or deletes one that has ended
kubectl delete jobset base --context=gke_my-project_us-west4-a_pods

# later, run it yourself: gives a slice back
gcloud container node-pools delete base-0 \
    --cluster=pods \
    --location=us-west4-a \
    --project=my-project \
    --quiet

# later, run it yourself: gives a slice back
gcloud container node-pools delete base-1 \
    --cluster=pods \
    --location=us-west4-a \
    --project=my-project \
    --quiet

# later, run it yourself: gives a slice back
gcloud container node-pools delete base-2 \
    --cluster=pods \
    --location=us-west4-a \
    --project=my-project \
    --quiet

# later, run it yourself: gives a slice back
gcloud container node-pools delete base-3 \
    --cluster=pods \
    --location=us-west4-a \
    --project=my-project \
    --quiet

# later, run it yourself: deletes the cluster, if it has no other job
gcloud container clusters delete pods --location=us-west4-a --project=my-project
