// Sealing and unsealing of one value. Sizes are checked before a byte is touched.
#include "seal.h"

#include <cstring>

#include "crc32c.h"

namespace memdb_storage {
namespace {

void put_u32(uint8_t* out, uint32_t number) {
  for (int i = 0; i < 4; ++i) out[i] = static_cast<uint8_t>(number >> (8 * i));
}

uint32_t get_u32(const uint8_t* in) {
  uint32_t number = 0;
  for (int i = 0; i < 4; ++i) number |= static_cast<uint32_t>(in[i]) << (8 * i);
  return number;
}

uint32_t checksum(Bytes key, const uint8_t* body, size_t size) {
  const Crc32c update = crc32c_best();
  return ~update(update(0xffffffffu, key.data, key.size), body, size);
}

}  // namespace

size_t sealed_size(size_t payload_size) {
  if (payload_size <= kSmallMaxBytes - 4) return 4 + payload_size;
  const size_t used = 8 + payload_size + kPageHeaderBytes;
  return (used + kPageBytes - 1) / kPageBytes * kPageBytes - kPageHeaderBytes;
}

void seal(Bytes key, Bytes payload, uint8_t* out) {
  const size_t total = sealed_size(payload.size);
  uint8_t* body = out + 4;
  if (total > kSmallMaxBytes) {
    put_u32(body, static_cast<uint32_t>(payload.size));
    body += 4;
  }
  if (payload.size) std::memcpy(body, payload.data, payload.size);
  body += payload.size;
  std::memset(body, 0, static_cast<size_t>(out + total - body));
  put_u32(out, checksum(key, out + 4, total - 4));
}

bool unseal(Bytes key, Bytes value, Bytes* payload) {
  if (value.size < 4) return false;
  const size_t size = value.size - 4;
  if (checksum(key, value.data + 4, size) != get_u32(value.data)) return false;
  *payload = {value.data + 4, size};
  if (value.size <= kSmallMaxBytes) return true;
  const size_t length = get_u32(value.data + 4);
  if (length > size - 4) return false;
  *payload = {value.data + 8, length};
  return true;
}

}  // namespace memdb_storage
