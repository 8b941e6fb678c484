// Owners of kernel resources: a descriptor, a memory mapping. Movable, never copied, released once.
#pragma once

#include <sys/mman.h>
#include <unistd.h>

#include <cerrno>
#include <cstddef>
#include <utility>

namespace aurochs {

class UniqueFd {
 public:
  UniqueFd() = default;
  explicit UniqueFd(int fd) : fd_(fd) {}
  UniqueFd(const UniqueFd&) = delete;
  UniqueFd& operator=(const UniqueFd&) = delete;
  UniqueFd(UniqueFd&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  UniqueFd& operator=(UniqueFd&& other) noexcept {
    if (this != &other) {
      reset();
      fd_ = std::exchange(other.fd_, -1);
    }
    return *this;
  }
  ~UniqueFd() { reset(); }

  int get() const { return fd_; }
  bool valid() const { return fd_ >= 0; }
  int release() { return std::exchange(fd_, -1); }
  void reset() {
    // Linux has closed the descriptor whatever close() says; a second try could close a stranger's.
    if (fd_ >= 0) ::close(std::exchange(fd_, -1));
  }

 private:
  int fd_ = -1;
};

class MmapRegion {
 public:
  MmapRegion() = default;
  MmapRegion(const MmapRegion&) = delete;
  MmapRegion& operator=(const MmapRegion&) = delete;
  ~MmapRegion() { reset(); }

  // 0, or a negative errno with nothing mapped.
  int map(size_t bytes, int flags, int fd, off_t offset) {
    reset();
    void* base = ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, flags, fd, offset);
    if (base == MAP_FAILED) return -errno;
    base_ = static_cast<unsigned char*>(base);
    bytes_ = bytes;
    return 0;
  }
  void reset() {
    if (base_ != nullptr) ::munmap(std::exchange(base_, nullptr), std::exchange(bytes_, 0));
  }

  unsigned char* data() const { return base_; }
  size_t size() const { return bytes_; }

 private:
  unsigned char* base_ = nullptr;
  size_t bytes_ = 0;
};

}  // namespace aurochs
