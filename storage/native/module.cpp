// Bindings of memdb.storage._native. Bytes come and go as Python's own objects, one copy each: what
// is made is what LMDB is handed. A wrong type is a TypeError, damage a StoreCorrupt, never a
// crash. The work of one call is short, so the GIL is kept.
#include <nanobind/nanobind.h>

#include <stdexcept>

#include "crc32c.h"
#include "seal.h"

namespace nb = nanobind;
using namespace memdb_storage;

namespace {

Bytes view(PyObject* object) {
  char* data;
  Py_ssize_t size;
  if (PyBytes_AsStringAndSize(object, &data, &size) < 0) throw nb::python_error();
  return {reinterpret_cast<const uint8_t*>(data), static_cast<size_t>(size)};
}

nb::object new_bytes(size_t size) {
  PyObject* made = PyBytes_FromStringAndSize(nullptr, static_cast<Py_ssize_t>(size));
  if (made == nullptr) throw nb::python_error();
  return nb::steal(made);
}

uint8_t* bytes_of(const nb::object& made) {
  return reinterpret_cast<uint8_t*>(PyBytes_AsString(made.ptr()));
}

nb::object sealed(PyObject* key, PyObject* payload) {
  const Bytes given = view(payload);
  if (given.size >= 0xffffffffu - kPageBytes) throw std::length_error("a value under 4 GiB");
  nb::object made = new_bytes(sealed_size(given.size));
  seal(view(key), given, bytes_of(made));
  return made;
}

[[noreturn]] void corrupt(const char* problem) {
  const nb::object error = nb::module_::import_("memdb.errors").attr("StoreCorrupt");
  const nb::object raised = error(problem, nb::arg("path") = "kv");
  PyErr_SetObject(error.ptr(), raised.ptr());
  throw nb::python_error();
}

nb::object unsealed(PyObject* key, PyObject* value) {
  Bytes payload;
  if (!unseal(view(key), view(value), &payload))
    corrupt("a stored value fails its checksum");
  return nb::steal(PyBytes_FromStringAndSize(reinterpret_cast<const char*>(payload.data),
                                             static_cast<Py_ssize_t>(payload.size)));
}

// The two items of a (key, value) pair, borrowed.
struct Pair {
  PyObject* key;
  PyObject* value;

  explicit Pair(PyObject* pair) {
    if (!PyTuple_Check(pair) || PyTuple_Size(pair) != 2)
      throw nb::type_error("pairs of (key, value)");
    key = PyTuple_GetItem(pair, 0);
    value = PyTuple_GetItem(pair, 1);
  }
};

nb::object pair_of(PyObject* key, nb::object&& value) {
  PyObject* made = PyTuple_New(2);
  if (made == nullptr) throw nb::python_error();
  Py_INCREF(key);
  PyTuple_SetItem(made, 0, key);
  PyTuple_SetItem(made, 1, value.release().ptr());
  return nb::steal(made);
}

nb::list seal_many(nb::iterable items) {
  nb::list found;
  for (nb::handle item : items) {
    const Pair pair(item.ptr());
    found.append(pair_of(pair.key, sealed(pair.key, pair.value)));
  }
  return found;
}

nb::list unseal_until(nb::iterable entries, nb::bytes stop) {
  nb::list found;
  for (nb::handle item : entries) {
    const Pair pair(item.ptr());
    const int beyond = PyObject_RichCompareBool(pair.key, stop.ptr(), Py_GE);
    if (beyond < 0) throw nb::python_error();
    if (beyond) break;
    found.append(pair_of(pair.key, unsealed(pair.key, pair.value)));
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
}
