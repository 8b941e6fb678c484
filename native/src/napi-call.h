// The one place that checks napi_status, and the conversions that every binding needs.
#pragma once

#include <node_api.h>

#include <cstddef>
#include <cstdint>
#include <initializer_list>

namespace aurochs {

// True if the call succeeded. Else a JavaScript exception is pending and the caller must return at
// once.
bool ok(napi_env env, napi_status status);

struct Bytes {
  unsigned char* data = nullptr;
  size_t size = 0;
  // Null data unless [offset, offset + length) lies inside.
  unsigned char* range(double offset, double length) const;
};

// Arguments of one call, read in order. After the first wrong one `valid()` is false and a
// TypeError is pending.
class Arguments {
 public:
  static constexpr size_t kMax = 8;

  Arguments(napi_env env, napi_callback_info info, size_t expected);

  bool valid() const { return valid_; }
  size_t count() const { return count_; }
  double number();
  int32_t integer() { return static_cast<int32_t>(number()); }
  bool flag();
  Bytes bytes();
  // The value as it is, for references and functions.
  napi_value value();
  // Copies at most `capacity - 1` bytes and a terminator; longer text is an error.
  void text(char* out, size_t capacity);

 private:
  void fail(const char* what);

  napi_env env_;
  napi_value values_[kMax] = {};
  size_t count_ = 0;
  size_t next_ = 0;
  bool valid_ = false;
};

napi_value to_js(napi_env env, double value);
napi_value to_js(napi_env env, const char* text);
napi_value undefined(napi_env env);

struct NamedValue {
  const char* name;
  napi_value value;
};
napi_value make_object(napi_env env, std::initializer_list<NamedValue> values);

// Calls `callback(argument)` from the event loop, outside any JavaScript; what it throws ends the
// process as any uncaught exception does. A handle scope must be open.
void call_back(napi_env env, napi_async_context context, napi_ref callback, double argument);

// Throws RangeError and returns null.
napi_value throw_range(napi_env env, const char* message);

}  // namespace aurochs
