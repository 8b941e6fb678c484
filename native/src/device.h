// Facts about an open file or block device, its lock, and FUSE mounts. Results are 0 or a negative
// errno.
#pragma once

#include <cstdint>

namespace aurochs {

struct DeviceFacts {
  bool block = false;
  uint64_t size_bytes = 0;
  // Unit of offsets and lengths of direct I/O; 0: the file system does not do it.
  uint32_t sector_bytes = 0;
  // Alignment of memory for direct I/O; 0: not known.
  uint32_t memory_align = 0;
};

// -EINVAL if it is neither a regular file nor a block device.
int inspect(int fd, DeviceFacts* facts);
// flock(2): -EWOULDBLOCK if another open file description holds it.
int lock_exclusive(int fd);
// The descriptor of the new mount, or a negative errno. `options` is appended to those that FUSE
// needs.
int fuse_mount(const char* dir, const char* source, const char* options);
int fuse_unmount(const char* dir, bool lazy);

}  // namespace aurochs
