#!/usr/bin/python3
"""Says what /dev/kvm offers here, one `name=value` a line; exit status 0 if it has a dirty ring.

Runs inside a lab host, before anything of the project is built. Numbers: linux/kvm.h.
"""

import fcntl
import os
import sys

_KVM_GET_API_VERSION = 0xAE00
_KVM_CREATE_VM = 0xAE01
_KVM_CHECK_EXTENSION = 0xAE03
_KVM_CREATE_VCPU = 0xAE41
_KVM_GET_TSC_KHZ = 0xAEA3
_CAPABILITIES = {"dirty_ring_bytes": 192, "dirty_ring_acq_rel_bytes": 223}


def tsc_khz(fd):
    """What KVM believes the processor's TSC to run at; fd is /dev/kvm's."""
    vm = fcntl.ioctl(fd, _KVM_CREATE_VM, 0)
    try:
        vcpu = fcntl.ioctl(vm, _KVM_CREATE_VCPU, 0)
        try:
            return fcntl.ioctl(vcpu, _KVM_GET_TSC_KHZ, 0)
        finally:
            os.close(vcpu)
    finally:
        os.close(vm)


def main():
    try:
        fd = os.open("/dev/kvm", os.O_RDWR | os.O_CLOEXEC)
    except OSError as error:
        print(f"error=/dev/kvm: {error.strerror}")
        return 1
    values = {name: fcntl.ioctl(fd, _KVM_CHECK_EXTENSION, capability)
              for name, capability in _CAPABILITIES.items()}
    print(f"api={fcntl.ioctl(fd, _KVM_GET_API_VERSION, 0)}")
    for name, value in values.items():
        print(f"{name}={value}")
    print(f"tsc_khz={tsc_khz(fd)}")
    return 0 if all(values.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
