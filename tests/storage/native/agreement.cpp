// The native code of storage against plain forms of itself: a program of its own, so that
// sanitizers and emulators can run it. Exits 1 at the first difference and says which.
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <vector>

#include "crc32c.h"
#include "seal.h"

using namespace memdb_storage;

namespace {

uint64_t state = 1;

uint64_t next_number() {  // SplitMix64
  state += 0x9E3779B97F4A7C15ULL;
  uint64_t z = state;
  z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9ULL;
  z = (z ^ (z >> 27)) * 0x94D049BB133111EBULL;
  return z ^ (z >> 31);
}

void require(bool holds, const char* what, size_t size) {
  if (holds) return;
  std::printf("%s differs at %zu bytes\n", what, size);
  std::exit(1);
}

// Random bytes in a buffer of exactly their size, so that a sanitizer sees a step beyond it.
struct Buffer {
  std::unique_ptr<uint8_t[]> data;
  size_t size;

  explicit Buffer(size_t count) : data(new uint8_t[count]), size(count) {
    for (size_t i = 0; i < count; ++i) data[i] = static_cast<uint8_t>(next_number());
  }
  Bytes view() const { return {data.get(), size}; }
};

uint32_t crc32c_bitwise(uint32_t crc, const uint8_t* data, size_t size) {
  for (size_t i = 0; i < size; ++i) {
    crc ^= data[i];
    for (int bit = 0; bit < 8; ++bit) crc = (crc >> 1) ^ (0x82f63b78u & (0u - (crc & 1)));
  }
  return crc;
}

void check_crc32c() {
  const Crc32c known[] = {&crc32c_tables, crc32c_sse42(), crc32c_arm(), crc32c_best()};
  for (size_t size = 0; size < 70; ++size) {
    const Buffer bytes(size);
    for (const Crc32c update : known) {
      if (update == nullptr) continue;
      const size_t cut = size / 3;
      const uint32_t found =
          update(update(~0u, bytes.data.get(), cut), bytes.data.get() + cut, size - cut);
      require(found == crc32c_bitwise(~0u, bytes.data.get(), size), "crc32c", size);
    }
  }
}

void check_seal() {
  for (const size_t size : {0, 1, 7, 1895, 1896, 1897, 4071, 4072, 4073, 9000}) {
    const Buffer key(size % 23 + 1), payload(size);
    Buffer out(sealed_size(size));
    seal(key.view(), payload.view(), out.data.get());
    require(out.size <= kSmallMaxBytes || (out.size + kPageHeaderBytes) % kPageBytes == 0,
            "the size rule", size);
    Bytes found;
    require(unseal(key.view(), out.view(), &found) && found.size == size &&
                std::memcmp(found.data, payload.data.get(), size) == 0,
            "seal", size);
    out.data[next_number() % out.size] ^= 1;
    require(!unseal(key.view(), out.view(), &found), "a damaged value", size);
    const Buffer other(size);
    require(!unseal(key.view(), other.view(), &found), "a random value", size);
  }
}

}  // namespace

int main() {
  check_crc32c();
  check_seal();
  std::printf("all agree\n");
  return 0;
}
