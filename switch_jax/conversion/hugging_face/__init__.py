"""Reads and writes folders of Hugging Face's Switch Transformers, T5, mT5, Qwen3-MoE and Qwen3.

folder        opens a folder, and checks it by its headers
model_config  translates config.json and our `ModelConfig`
family        what families of models differ in: t5 and qwen3
tensor_files  the files that hold the tensors
tokenizer     the tokenizer and VOCABULARY     tokenizer_json  tokenizer.json
export        writes a folder
"""

from switch_jax.conversion.hugging_face.folder import is_hugging_face, open_folder
