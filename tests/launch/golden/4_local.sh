# process 0 of 4
JAX_PLATFORMS=cpu python -m switch_jax train --gin_file=runs/demo_switch.gin --gin.MESH_DATA=2 --gin.MESH_EXPERT=2 --gin.GROUP_SIZE=256 --gin.DATA_STREAMS=4 --gin.MODEL_DIR=runs/rehearsal --gin.TRAIN_STEPS=100 --coordinator_address=localhost:8476 --process_count=4 --process_index=0
# process 1 of 4
JAX_PLATFORMS=cpu python -m switch_jax train --gin_file=runs/demo_switch.gin --gin.MESH_DATA=2 --gin.MESH_EXPERT=2 --gin.GROUP_SIZE=256 --gin.DATA_STREAMS=4 --gin.MODEL_DIR=runs/rehearsal --gin.TRAIN_STEPS=100 --coordinator_address=localhost:8476 --process_count=4 --process_index=1
# process 2 of 4
JAX_PLATFORMS=cpu python -m switch_jax train --gin_file=runs/demo_switch.gin --gin.MESH_DATA=2 --gin.MESH_EXPERT=2 --gin.GROUP_SIZE=256 --gin.DATA_STREAMS=4 --gin.MODEL_DIR=runs/rehearsal --gin.TRAIN_STEPS=100 --coordinator_address=localhost:8476 --process_count=4 --process_index=2
# process 3 of 4
JAX_PLATFORMS=cpu python -m switch_jax train --gin_file=runs/demo_switch.gin --gin.MESH_DATA=2 --gin.MESH_EXPERT=2 --gin.GROUP_SIZE=256 --gin.DATA_STREAMS=4 --gin.MODEL_DIR=runs/rehearsal --gin.TRAIN_STEPS=100 --coordinator_address=localhost:8476 --process_count=4 --process_index=3
