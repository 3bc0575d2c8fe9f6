"""torch.compile, block by block."""

from __future__ import annotations

from torch import nn

from pointmix.nn.block import Block

GRAPHS = 64  # kept for each kind of module; torch keeps 8, fewer than stages times modes (training, evaluation)


def compile_network(network: nn.Module) -> None:
    """Let torch compile the network in place, at its first call; a new size of the input is a new graph.

    Of networks with blocks these are compiled, each alone: blocks of equal shapes share a graph, and what depends on
    sizes only, such as plans, is not computed again in each call. Reducers and heads are left as they are.
    """
    import torch._dynamo  # takes seconds

    torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, GRAPHS)
    blocks: list[nn.Module] = [module for module in network.modules() if isinstance(module, Block)]
    for module in blocks or [network]:
        module.compile(dynamic=False)
