"""What `scripts/gpu_report.py` reads: a host function's launches, and loops and loads of machine code."""

from __future__ import annotations

from cupola.kernels.gpu.ending import Ending
from cupola.kernels.gpu.linear import Linear, linear
from cupola.kernels.gpu.trait import Gpu
from cupola.kernels.gpu.weights import Packed
from cupola.quantize.formats import Format
from gpu_machine_code.launches import Launch, launches
from gpu_machine_code.sass import kernels

CODE = """\
.text.kernel_kernel:
        /*0000*/                   S2R R0, SR_TID.X ;
.L_x_1:
        /*0010*/                   LDG.E.128.CONSTANT R4, desc[UR4][R2.64] ;
        /*0020*/               @P1 LDG.E.64 R8, desc[UR4][R2.64+0x10] ;
        /*0030*/                   HMMA.16816.F32 R12, R4, R8, R12 ;
        /*0040*/                   LDG.E.U16 R9, desc[UR4][R2.64+0x20] ;
        /*0050*/               @P0 BRA `(.L_x_1) ;
.L_x_2:
        /*0060*/                   EXIT ;
.L_x_3:
        /*0070*/                   BRA `(.L_x_3) ;
"""


def test_launches_are_those_of_the_number_of_rows() -> None:
    function = linear(Linear(Packed(Format.Q4, 64, 256, half=False), Ending(64, 64), "float32", "float32", Gpu()))
    assert launches(function, {"n": 1}) == [Launch(0, 32, 4)]
    assert launches(function, {"n": 7}) == [Launch(1, 32, 8)]
    assert launches(function, {"n": 40}) == [Launch(3, 256, 1)]
    assert {launch.index for launch in launches(function, {})} == {0, 1, 2, 3}


def test_loops_and_loads_are_found() -> None:
    whole, loop = kernels(CODE)["kernel_kernel"]
    assert whole.count == 8
    assert loop.count == 5
    assert loop.matrix == 1
    assert loop.loads == {16: 1, 8: 1, 2: 1}
    assert loop.bytes == 32 * 26
    assert loop.ahead == 24
