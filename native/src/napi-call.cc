#include "napi-call.h"

namespace aurochs {

bool ok(napi_env env, napi_status status) {
  if (status == napi_ok) return true;
  bool pending = false;
  napi_is_exception_pending(env, &pending);
  if (!pending) {
    const napi_extended_error_info* info = nullptr;
    napi_get_last_error_info(env, &info);
    const bool told = info != nullptr && info->error_message != nullptr;
    napi_throw_error(env, "ERR_NATIVE", told ? info->error_message : "Node-API call failed");
  }
  return false;
}

unsigned char* Bytes::range(double offset, double length) const {
  const double limit = static_cast<double>(size);
  const bool inside = offset >= 0 && length >= 0 && offset <= limit && length <= limit - offset;
  return inside ? data + static_cast<size_t>(offset) : nullptr;
}

Arguments::Arguments(napi_env env, napi_callback_info info, size_t expected) : env_(env) {
  count_ = kMax;
  if (!ok(env, napi_get_cb_info(env, info, &count_, values_, nullptr, nullptr))) return;
  valid_ = true;
  if (count_ < expected) fail("too few arguments");
}

void Arguments::fail(const char* what) {
  if (valid_) napi_throw_type_error(env_, "ERR_INVALID_ARG_TYPE", what);
  valid_ = false;
}

napi_value Arguments::value() {
  if (!valid_ || next_ >= count_) {
    fail("too few arguments");
    return nullptr;
  }
  return values_[next_++];
}

double Arguments::number() {
  double out = 0;
  const napi_value given = value();
  if (valid_ && napi_get_value_double(env_, given, &out) != napi_ok) fail("a number is expected");
  return out;
}

bool Arguments::flag() {
  bool out = false;
  const napi_value given = value();
  if (valid_ && napi_get_value_bool(env_, given, &out) != napi_ok) fail("a boolean is expected");
  return out;
}

Bytes Arguments::bytes() {
  Bytes out;
  void* data = nullptr;
  const napi_value given = value();
  if (valid_ && napi_get_buffer_info(env_, given, &data, &out.size) != napi_ok) {
    fail("a Buffer is expected");
  }
  out.data = static_cast<unsigned char*>(data);
  return out;
}

void Arguments::text(char* out, size_t capacity) {
  size_t length = 0;
  const napi_value given = value();
  if (!valid_) return;
  if (napi_get_value_string_utf8(env_, given, nullptr, 0, &length) != napi_ok) {
    return fail("a string is expected");
  }
  if (length >= capacity) return fail("the string is too long");
  if (!ok(env_, napi_get_value_string_utf8(env_, given, out, capacity, &length))) valid_ = false;
}

napi_value to_js(napi_env env, double value) {
  napi_value out = nullptr;
  return ok(env, napi_create_double(env, value, &out)) ? out : nullptr;
}

napi_value to_js(napi_env env, const char* text) {
  napi_value out = nullptr;
  return ok(env, napi_create_string_utf8(env, text, NAPI_AUTO_LENGTH, &out)) ? out : nullptr;
}

napi_value undefined(napi_env env) {
  napi_value out = nullptr;
  return ok(env, napi_get_undefined(env, &out)) ? out : nullptr;
}

napi_value make_object(napi_env env, std::initializer_list<NamedValue> values) {
  napi_value object = nullptr;
  if (!ok(env, napi_create_object(env, &object))) return nullptr;
  for (const NamedValue& entry : values) {
    if (entry.value == nullptr) return nullptr;
    if (!ok(env, napi_set_named_property(env, object, entry.name, entry.value))) return nullptr;
  }
  return object;
}

void call_back(napi_env env, napi_async_context context, napi_ref callback, double argument) {
  napi_value function = nullptr;
  napi_value receiver = nullptr;
  napi_value value = to_js(env, argument);
  if (value != nullptr && ok(env, napi_get_reference_value(env, callback, &function)) &&
      ok(env, napi_get_global(env, &receiver))) {
    napi_make_callback(env, context, receiver, function, 1, &value, nullptr);
  }
  bool pending = false;
  if (napi_is_exception_pending(env, &pending) != napi_ok || !pending) return;
  napi_value error = nullptr;
  if (napi_get_and_clear_last_exception(env, &error) == napi_ok) napi_fatal_exception(env, error);
}

napi_value throw_range(napi_env env, const char* message) {
  napi_throw_range_error(env, "ERR_OUT_OF_RANGE", message);
  return nullptr;
}

}  // namespace aurochs
