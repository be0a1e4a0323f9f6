from switch_jax.config import MeshConfig
from switch_jax.partitioning.mesh import make_mesh
from switch_jax.train_step.state import abstract_state
from tests.trainer.helpers import tiny_config, tiny_model

# So large that the moments of matrices are factored.
MODEL = tiny_model(num_embeddings=128, embed_dim=128, mlp_dim=128)


def test_moments_lie_where_their_parameter_lies():
    mesh = MeshConfig(1, 4, 2)
    abstract = abstract_state(tiny_config(MODEL, mesh=mesh), make_mesh(mesh))

    def of_device(array):
        return array.sharding.shard_shape(array.shape)

    def layer(tree):
        return tree["encoder"]["blocks"]["layer_1"]

    # [blocks, E, D, F]: one of four experts on each device, and half of its hidden units.
    parameters, moments = layer(abstract.parameters), layer(abstract.optimizer.moments)
    moment = moments["feed_forward"]["wi_0"]
    assert of_device(parameters["feed_forward"]["wi_0"]) == (1, 1, 128, 64)
    assert of_device(moment.row) == (1, 1, 128)
    assert of_device(moment.column) == (1, 1, 64)
    assert of_device(moment.square_sum) == (1, 1)
    query = moments["self_attention"]["query"]  # too narrow to be factored
    assert of_device(query.full) == of_device(parameters["self_attention"]["query"])
