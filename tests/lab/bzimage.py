"""What is inside a Linux bzImage: the kernel as an ELF, which also has a PVH entry.

Linux packs its vmlinux into the bzImage, and the setup header says where and how:
https://docs.kernel.org/arch/x86/boot.html (payload_offset, payload_length).
"""

import bz2
import lzma
import shutil
import struct
import subprocess
import zlib

from images import ImageError

_ELF = b"\x7fELF"
_PVH_NOTE = 18  # XEN_ELFNOTE_PHYS32_ENTRY
_MOST = 1 << 30  # no kernel is larger; whoever made the image must not fill our memory


def _tool(name):
    """A decompressor that Python lacks, as a function from bytes to bytes."""

    def run(packed):
        if not shutil.which(name):
            raise ImageError(f"no {name}: run scripts/lab-setup, or apt-get install {name}")
        done = subprocess.run([name, "-dc"], input=packed, capture_output=True, timeout=120)
        if done.returncode != 0:
            raise ImageError(f"{name}: {done.stderr.decode('utf-8', 'replace').strip()}")
        return done.stdout

    return run


# Magic number of the payload, and what unpacks it. All but gzip are followed by the unpacked size.
_UNPACKERS = (
    (_ELF, bytes),
    (b"\x1f\x8b", lambda packed: zlib.decompressobj(16 + zlib.MAX_WBITS).decompress(packed, _MOST)),
    (b"BZh", lambda packed: bz2.BZ2Decompressor().decompress(packed, _MOST)),
    # XZ, and LZMA as it was before.
    (b"\xfd7zXZ", lambda packed: lzma.LZMADecompressor().decompress(packed, _MOST)),
    (b"\x5d\x00", lambda packed: lzma.LZMADecompressor().decompress(packed, _MOST)),
    (b"\x02\x21\x4c\x18", lambda packed: _tool("lz4")(packed[:-4])),
    (b"\x28\xb5\x2f\xfd", lambda packed: _tool("zstd")(packed[:-4])),
)


def payload(image):
    """The compressed kernel in the bytes of a bzImage."""
    if image[0x202:0x206] != b"HdrS" or len(image) < 0x250:
        raise ImageError("not a bzImage")
    offset, length = struct.unpack_from("<II", image, 0x248)
    start = ((image[0x1f1] or 4) + 1) * 512 + offset
    if length < 8 or start + length > len(image):
        raise ImageError(f"payload of {length} bytes at {start}, the image has {len(image)}")
    return image[start:start + length]


def unpack(packed):
    """The vmlinux that a payload holds."""
    for magic, unpacker in _UNPACKERS:
        if packed.startswith(magic):
            kernel = unpacker(packed)
            break
    else:
        raise ImageError(f"payload of an unknown format: {packed[:8].hex(' ')}")
    want = len(packed) if kernel is packed else struct.unpack_from("<I", packed, len(packed) - 4)[0]
    if len(kernel) != want or not kernel.startswith(_ELF):
        raise ImageError(f"payload unpacks to {len(kernel)} bytes, no ELF of {want}")
    return kernel


def pvh_entry(kernel):
    """The physical address at which a 64-bit ELF wants to be entered by PVH; None if by nothing."""
    if kernel[:6] != _ELF + b"\x02\x01":
        raise ImageError("no 64-bit little-endian ELF")
    table, = struct.unpack_from("<Q", kernel, 0x20)
    size, count = struct.unpack_from("<HH", kernel, 0x36)
    for n in range(count):
        kind, _, offset, _, _, length = struct.unpack_from("<IIQQQQ", kernel, table + n * size)
        at, end = offset, offset + length
        while kind == 4 and at + 12 <= end:  # PT_NOTE
            name, value, note = struct.unpack_from("<III", kernel, at)
            value_at = at + 12 + (name + 3) // 4 * 4
            if note == _PVH_NOTE and kernel[at + 12:at + 12 + name] == b"Xen\0":
                return int.from_bytes(kernel[value_at:value_at + value], "little")
            at = value_at + (value + 3) // 4 * 4
    return None


def extract_pvh(bzimage, elf):
    """Writes the vmlinux of a bzImage to the path `elf`; its PVH entry. ImageError without one."""
    try:
        kernel = unpack(payload(bzimage.read_bytes()))
        entry = pvh_entry(kernel)
    except (struct.error, zlib.error, lzma.LZMAError, OSError, ValueError) as error:
        raise ImageError(f"{bzimage}: {error}") from None
    except ImageError as error:
        raise ImageError(f"{bzimage}: {error}") from None
    if entry is None:
        raise ImageError(f"{bzimage}: its kernel has no PVH entry (CONFIG_PVH)")
    elf.write_bytes(kernel)
    return entry
