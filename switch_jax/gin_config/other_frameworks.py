"""Names of T5X, flaxformer, MaxText and Hugging Face, and what they are called here.

docs/coming_from.md has them, too.
"""

# Macros and settings of T5X, flaxformer, MaxText and Hugging Face.
MACROS = {
    "ASSIGNMENT_MAP": "RESTORED_PARAMETERS",
    "BASE_OUTPUT_DIRECTORY": "MODEL_DIR",
    "BATCH_PRIORITIZED_ROUTING": "ENCODER_ROUTER_TYPE = 'batch_prioritized'",
    "CAPACITY_FACTOR": "TRAIN_EXPERT_CAPACITY_FACTOR and EVAL_EXPERT_CAPACITY_FACTOR",
    "D_FF": "MLP_DIM",
    "D_KV": "HEAD_DIM",
    "D_MODEL": "EMBED_DIM",
    "DROPOUT": "DROPOUT_RATE",
    "DTYPE": "ACTIVATION_DTYPE",
    "EVAL_INTERVAL": "EVAL_PERIOD",
    "EXPERT_CAPACITY": "TRAIN_EXPERT_CAPACITY_FACTOR and EVAL_EXPERT_CAPACITY_FACTOR",
    "EXPERTS_CHOOSE": "ENCODER_ROUTER_TYPE = 'experts_choose'",
    "GRADIENT_ACCUMULATION_STEPS": "NUM_MICROBATCHES",
    "HIDDEN_SIZE": "EMBED_DIM",
    "LAYERLAYOUT.BOTTOM": "'bottom'",
    "LAYERLAYOUT.MIDDLE": "'middle'",
    "LAYERLAYOUT.MIXED": "'mixed'",
    "LAYERLAYOUT.TOP": "'top'",
    "LOAD_BALANCE_LOSS_WEIGHT": "AUX_LOSS_FACTOR",
    "LOGGING_STEPS": "LOG_PERIOD",
    "LOSS_NORMALIZING_FACTOR": "always the number of real target tokens",
    "MAX_GROUP_SIZE": "GROUP_SIZE and DECODER_GROUP_SIZE",
    "MAX_STEPS": "TRAIN_STEPS",
    "MAX_TARGET_LENGTH": "TASK_FEATURE_LENGTHS, of inputs and targets",
    "MIXTURE_OR_TASK_MODULE": "the line `import MODULE` in a gin file",
    "MOE_TOP_K": "NUM_SELECTED_EXPERTS",
    "NUM_EXPERT_PARTITIONS": "MESH_EXPERT",
    "NUM_EXPERTS_PER_TOK": "NUM_SELECTED_EXPERTS",
    "NUM_EXPERTS_PER_TOKEN": "NUM_SELECTED_EXPERTS",
    "NUM_LOCAL_EXPERTS": "NUM_EXPERTS",
    "NUM_MODEL_PARTITIONS": "MESH_MODEL",
    "NUM_PARTITIONS": "MESH_MODEL",
    "NUM_SPARSE_DECODER_LAYERS": "NUM_DECODER_SPARSE_LAYERS",
    "NUM_SPARSE_ENCODER_LAYERS": "NUM_ENCODER_SPARSE_LAYERS",
    "OUTPUT_DIR": "MODEL_DIR",
    "PER_DEVICE_BATCH_SIZE": "BATCH_SIZE, of all devices together",
    "PER_DEVICE_TRAIN_BATCH_SIZE": "BATCH_SIZE, of all devices together",
    "RESTORE": "RESTORED_PARAMETERS",
    "ROUTER_AUX_LOSS_COEF": "AUX_LOSS_FACTOR",
    "ROUTER_JITTER_NOISE": "JITTER_NOISE",
    "ROUTER_TYPE": "ENCODER_ROUTER_TYPE",
    "ROUTER_Z_LOSS_COEF": "ROUTER_Z_LOSS_FACTOR",
    "SAVE_STEPS": "CHECKPOINT_PERIOD",
    "SEED": "RANDOM_SEED",
    "SEQUENCE_LENGTH": "TASK_FEATURE_LENGTHS, of inputs and targets",
    "SPARSE_LAYOUT": "ENCODER_SPARSE_LAYOUT and DECODER_SPARSE_LAYOUT",
    "STEPS": "TRAIN_STEPS",
    "TOP_K": "NUM_SELECTED_EXPERTS",
    "VOCAB_SIZE": "NUM_EMBEDDINGS",
}

# Macros and settings of theirs for which there is none here, and what to do instead.
ABSENT = {
    "ATTN_IMPLEMENTATION": "on GPUs GPU_ATTENTION = 'cudnn'; on TPUs attention is always a kernel",
    "DECODER_ROUTER_TYPE": "in a decoder tokens choose, and take slots in their order: other rules "
    "would look at later tokens",
    "DEEPSPEED": "MESH_DATA, MESH_EXPERT, MESH_MODEL and FULLY_SHARDED_WEIGHTS split a model",
    "ICI_CONTEXT_PARALLELISM": "rows are not split; split the batch with MESH_DATA",
    "ICI_PIPELINE_PARALLELISM": "layers are not split over devices; use MESH_EXPERT and MESH_MODEL",
    "ICI_SEQUENCE_PARALLELISM": "rows are not split; split the batch with MESH_DATA",
    "LABEL_SMOOTHING": "the paper trains without it; Z_LOSS keeps logits small",
    "LOAD_IN_8BIT": "weights are float32 or, exported, bfloat16; nothing is quantised",
    "LORA": "all weights are trained, or those that TRAINED_PARAMETERS names",
    "LORA_ALPHA": "all weights are trained, or those that TRAINED_PARAMETERS names",
    "LORA_RANK": "all weights are trained, or those that TRAINED_PARAMETERS names",
    "MEGABLOX": "experts have a capacity in training; decoding drops no token",
    "MODEL_PARALLEL_SUBMESH": "MESH_MODEL splits the matrices; JAX places the mesh on the slice",
    "QUANTIZATION": "weights are float32 or, exported, bfloat16; nothing is quantised",
    "SPARSE_MATMUL": "experts have a capacity in training; decoding drops no token",
    "USE_HARDWARE_RNG": "a batch's random numbers are the same on every mesh",
}

# What gin files of T5X and flaxformer configure, without the module: some of the macros for it.
CONFIGURABLES = {
    "CheckpointConfig": "CHECKPOINT_PERIOD, KEEP_CHECKPOINTS and INITIAL_CHECKPOINT_PATH",
    "DatasetConfig": "MIXTURE_OR_TASK_NAME, TASK_FEATURE_LENGTHS, BATCH_SIZE and USE_CACHED_TASKS",
    "EncoderDecoderModel": "Z_LOSS and OPTIMIZER",
    "ModelBasedPjitPartitioner": "MESH_DATA, MESH_EXPERT and MESH_MODEL",
    "MoeEncoderDecoderModel": "AUX_LOSS_FACTOR, ROUTER_Z_LOSS_FACTOR, Z_LOSS and OPTIMIZER",
    "MoeLayer": "NUM_EXPERTS, GROUP_SIZE and TRAIN_EXPERT_CAPACITY_FACTOR",
    "MoePjitPartitioner": "MESH_DATA, MESH_EXPERT and MESH_MODEL",
    "MoeTrainer": "NUM_MICROBATCHES",
    "PjitPartitioner": "MESH_DATA, MESH_EXPERT and MESH_MODEL",
    "RestoreCheckpointConfig": "INITIAL_CHECKPOINT_PATH and RESTORED_PARAMETERS",
    "SaveCheckpointConfig": "CHECKPOINT_PERIOD and KEEP_CHECKPOINTS",
    "T5Config": "EMBED_DIM, MLP_DIM, NUM_HEADS, NUM_ENCODER_LAYERS and DROPOUT_RATE",
    "Trainer": "NUM_MICROBATCHES",
    "create_learning_rate_scheduler": "LEARNING_RATE, LR_SCHEDULE and WARMUP_STEPS",
    "train": "TRAIN_STEPS, LOG_PERIOD, EVAL_PERIOD, EVAL_STEPS and RANDOM_SEED",
}

# Packages that their gin files import.
PACKAGES = ("t5x", "flaxformer", "mesh_tensorflow")
