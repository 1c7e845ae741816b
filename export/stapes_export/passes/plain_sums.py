"""Add before LayerNormalization or Gelu becomes Sum.   norm(x + y) = norm(sum(x, y)),   gelu(x + y) = gelu(sum(x, y))

The same value under another name, because of what ONNX Runtime makes of the first: it fuses Add into SkipLayerNormalization and BiasGelu,
for which the CPU takes 6.4 and 1.9 ns an element, where sum and norm take 1.0, and sum and Gelu 1.2.
"""

from stapes_export.artifact import FRONTEND, Artifact, part

BEHIND = {"LayerNormalization", "Gelu"}


def plain_sums(artifact: Artifact) -> Artifact:
    for node in artifact.model.graph:
        if node.op_type == "Add" and part(node) != FRONTEND and any(user.op_type in BEHIND for user, _ in node.outputs[0].uses()):
            node.op_type = "Sum"
    return artifact
