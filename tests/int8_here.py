"""Which int8 this host can compute: without VNNI, AMX or the Arm dot product, 8-bit weights saturate without a sign."""

from stapes.session import missing
from stapes_export.passes.quantize_rows import NEEDS

LACKING = missing(NEEDS)

INT8 = "int8-portable" if LACKING else "int8"
"""The int8 to test with where either serves."""

REASON = f"int8 is wrong on this CPU, which has none of {', '.join(NEEDS)}"
