#include "device.h"

#include <fcntl.h>
#include <linux/fs.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>

#include "unique-fd.h"

#ifndef STATX_DIOALIGN
#define STATX_DIOALIGN 0x00002000U
#endif

namespace aurochs {
namespace {

// Where the kernel (before 6.1) cannot tell: every device takes whole blocks of this.
constexpr uint32_t kSafeSector = 4096;

// glibc's struct statx may be older than the kernel's: these two words follow stx_mnt_id.
struct DirectAlignment {
  uint32_t memory;
  uint32_t offset;
};
constexpr size_t kDirectAlignmentAt = 0x98;
static_assert(kDirectAlignmentAt + sizeof(DirectAlignment) <= sizeof(struct statx));

int inspect_file(int fd, DeviceFacts* facts) {
  struct statx info = {};
  if (::statx(fd, "", AT_EMPTY_PATH, STATX_SIZE | STATX_DIOALIGN, &info) != 0) return -errno;
  facts->size_bytes = info.stx_size;
  facts->sector_bytes = kSafeSector;
  if ((info.stx_mask & STATX_DIOALIGN) == 0) return 0;
  const auto* bytes = reinterpret_cast<const unsigned char*>(&info) + kDirectAlignmentAt;
  const auto* alignment = reinterpret_cast<const DirectAlignment*>(bytes);
  facts->sector_bytes = alignment->offset;
  facts->memory_align = alignment->memory;
  return 0;
}

int inspect_block(int fd, DeviceFacts* facts) {
  int sector = 0;
  if (::ioctl(fd, BLKGETSIZE64, &facts->size_bytes) != 0) return -errno;
  if (::ioctl(fd, BLKSSZGET, &sector) != 0) return -errno;
  facts->block = true;
  facts->sector_bytes = static_cast<uint32_t>(sector);
  facts->memory_align = static_cast<uint32_t>(sector);
  return 0;
}

}  // namespace

int inspect(int fd, DeviceFacts* facts) {
  struct stat info;
  if (::fstat(fd, &info) != 0) return -errno;
  if (S_ISBLK(info.st_mode)) return inspect_block(fd, facts);
  if (S_ISREG(info.st_mode)) return inspect_file(fd, facts);
  return -EINVAL;
}

int lock_exclusive(int fd) {
  for (;;) {
    if (::flock(fd, LOCK_EX | LOCK_NB) == 0) return 0;
    if (errno != EINTR) return -errno;
  }
}

int fuse_mount(const char* dir, const char* source, const char* options) {
  struct stat info;
  if (::stat(dir, &info) != 0) return -errno;
  UniqueFd fd(::open("/dev/fuse", O_RDWR | O_CLOEXEC | O_NONBLOCK));
  if (!fd.valid()) return -errno;
  char data[1024];
  const char* comma = *options == '\0' ? "" : ",";
  const int length =
      ::snprintf(data, sizeof data, "fd=%d,rootmode=%o,user_id=0,group_id=0%s%s", fd.get(),
                 static_cast<unsigned>(info.st_mode & S_IFMT), comma, options);
  if (length < 0 || static_cast<size_t>(length) >= sizeof data) return -E2BIG;
  if (::mount(source, dir, "fuse", MS_NOSUID | MS_NODEV, data) != 0) return -errno;
  return fd.release();
}

int fuse_unmount(const char* dir, bool lazy) {
  return ::umount2(dir, UMOUNT_NOFOLLOW | (lazy ? MNT_DETACH : 0)) == 0 ? 0 : -errno;
}

}  // namespace aurochs
