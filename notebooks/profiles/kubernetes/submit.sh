# Submit one step: submit.sh THREADS MEMORY_MB GPUS SCRIPT; prints the job's name.
kubectl create --output=name --filename=- <<JOB
apiVersion: batch/v1
kind: Job
metadata:
  generateName: fairdf-
spec:
  backoffLimit: 0  # the same command goes on with what failed
  template:
    spec:
      restartPolicy: Never
      containers:
        - name: step
          image: ${FAIRDF_IMAGE:?the image with the environment}
          workingDir: "$PWD"
          command: [bash, "$4"]
          resources:
            requests: {cpu: $1, memory: ${2}M}
            limits: {memory: ${2}M, nvidia.com/gpu: $3}
          volumeMounts:
            - {name: shared, mountPath: "${FAIRDF_MOUNT:?where the volume is mounted, here and in the jobs}"}
      volumes:
        - name: shared
          persistentVolumeClaim: {claimName: "${FAIRDF_CLAIM:?the persistent volume claim}"}
JOB
