"""Kernels and QEMU in the cache folder, and the initramfs images made from them and from busybox."""

import os
import pathlib
import shutil
import subprocess
import tempfile

HERE = pathlib.Path(__file__).resolve().parent

# What a lab host needs; what these depend on is found in modules.dep.
HOST_MODULES = (
    "9p", "9pnet_virtio", "virtio_pci", "virtio_console", "kvm-amd", "virtio_net", "tun", "bridge",
    "virtio_blk", "crc32c_generic", "ext4", "overlay")


class ImageError(Exception):
    """An image cannot be made; the text says what to do."""


def cache_folder():
    """$ROMULUS_CACHE, or ~/.cache/romulus."""
    return pathlib.Path(os.environ.get("ROMULUS_CACHE") or pathlib.Path.home() / ".cache/romulus")


def kernel(role):
    """The bzImage for "host" or "guest", as scripts/lab-setup left it."""
    path = cache_folder() / "kernels" / role / "vmlinuz"
    if not path.exists():
        raise ImageError(f"no {role} kernel at {path}: run scripts/lab-setup")
    return path.resolve()


def qemu():
    """The words that call what emulates a host, as scripts/lab-setup left it (and says why not Debian 12's)."""
    tree = (cache_folder() / "kernels/qemu").resolve()
    program = tree / "usr/bin/qemu-system-x86_64"
    if not program.exists():
        raise ImageError(f"no QEMU at {program}: run scripts/lab-setup")
    return [program, "-L", tree / "usr/share/qemu", "-L", tree / "usr/share/seabios"]


def modules_in_order(role, names):
    """Paths of the named modules and all they depend on, each after its own dependencies."""
    folder = next((kernel(role).parent / "lib/modules").iterdir())
    depends = {}
    for line in (folder / "modules.dep").read_text().splitlines():
        path, _, rest = line.partition(":")
        depends[path] = rest.split()
    by_name = {pathlib.PurePath(path).stem.replace("-", "_"): path for path in depends}
    order = []

    def add(path):
        if path in order:
            return
        for needed in depends[path]:
            add(needed)
        order.append(path)

    for name in names:
        if name.replace("-", "_") not in by_name:
            raise ImageError(f"kernel {folder.name} has no module {name}")
        add(by_name[name.replace("-", "_")])
    return [folder / path for path in order]


def pack(image, files):
    """Writes an uncompressed newc archive: files maps a path in it to a file or to bytes.

    Uncompressed, because inflating is slower than reading in an emulated host. The kernel adds
    /dev/console itself, so no device node, and so no root, is needed here.
    """
    busybox = shutil.which("busybox")
    if not busybox:
        raise ImageError("no busybox: run scripts/lab-setup")
    files = {"bin/busybox": pathlib.Path(busybox), **files}
    with tempfile.TemporaryDirectory(dir=pathlib.Path(image).parent) as staging:
        for name, content in files.items():
            target = pathlib.Path(staging, name)
            target.parent.mkdir(parents=True, exist_ok=True)
            if isinstance(content, bytes):
                target.write_bytes(content)
            else:
                shutil.copyfile(content, target)
            target.chmod(0o755)
        names = sorted(p.relative_to(staging) for p in pathlib.Path(staging).rglob("*"))
        with open(image, "wb") as out:
            subprocess.run(
                ["cpio", "--quiet", "-o", "-0", "-H", "newc", "--owner=0:0", "--reproducible"],
                cwd=staging, input=b"".join(os.fsencode(n) + b"\0" for n in names), stdout=out,
                check=True, timeout=60)
    return pathlib.Path(image)


def build_host_initramfs(image):
    modules = modules_in_order("host", HOST_MODULES)
    files = {f"modules/{path.name}": path for path in modules}
    files["modules/order"] = "".join(f"{path.name}\n" for path in modules).encode()
    files["init"] = HERE / "host_init.sh"
    files["agent.sh"] = HERE / "agent.sh"
    files["host_systemd.sh"] = HERE / "host_systemd.sh"
    return pack(image, files)
