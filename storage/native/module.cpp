// Bindings of memdb.storage._native: the envelope of values. Bytes come and go as Python's own
// objects, one copy each: what is made is what LMDB is handed. A wrong type is a TypeError, damage
// a StoreCorrupt, never a crash. The work of one call is short, so the GIL is kept.
#include <stdexcept>

#include "crc32c.h"
#include "objects.h"
#include "seal.h"

using namespace memdb_storage;

namespace {

nb::object sealed(PyObject* key, PyObject* payload) {
  const Bytes given = view(payload);
  if (given.size >= 0xffffffffu - kPageBytes) throw std::length_error("a value under 4 GiB");
  nb::object made = new_bytes(sealed_size(given.size));
  seal(view(key), given, bytes_of(made));
  return made;
}

nb::object unsealed(PyObject* key, PyObject* value) {
  const Bytes payload = payload_of(view(key), view(value));
  return new_bytes(payload.data, payload.size);
}

nb::list seal_many(nb::iterable items) {
  nb::list found;
  for (nb::handle item : items) {
    const Pair pair(item.ptr());
    found.append(new_tuple({nb::borrow(pair.first), sealed(pair.first, pair.second)}));
  }
  return found;
}

nb::list unseal_until(nb::iterable entries, nb::bytes stop) {
  nb::list found;
  for (nb::handle item : entries) {
    const Pair pair(item.ptr());
    const int beyond = PyObject_RichCompareBool(pair.first, stop.ptr(), Py_GE);
    if (beyond < 0) throw nb::python_error();
    if (beyond) break;
    found.append(new_tuple({nb::borrow(pair.first), unsealed(pair.first, pair.second)}));
  }
  return found;
}

uint32_t crc32c(nb::bytes data) {
  const Bytes given = view(data.ptr());
  return ~crc32c_best()(0xffffffffu, given.data, given.size);
}

}  // namespace

NB_MODULE(_native, module) {
  using namespace nb::literals;
  module.def("crc32c", &crc32c, "data"_a);
  module.def(
      "seal", [](nb::bytes key, nb::bytes payload) { return sealed(key.ptr(), payload.ptr()); },
      "key"_a, "payload"_a);
  module.def("seal_many", &seal_many, "items"_a);
  module.def(
      "unseal", [](nb::bytes key, nb::bytes value) { return unsealed(key.ptr(), value.ptr()); },
      "key"_a, "value"_a);
  module.def("unseal_until", &unseal_until, "entries"_a, "stop"_a);
  bind_filters(module);
  bind_keys(module);
  bind_terms(module);
  bind_reads(module);
  bind_samples(module);
}
