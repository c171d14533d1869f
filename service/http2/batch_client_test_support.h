// A client of streams of batches for tests, without a socket: nghttp2's own client, bytes in and
// bytes out. Everything is as gRPC has it; a test may say otherwise.
#pragma once

#include <gtest/gtest.h>
#include <nghttp2/nghttp2.h>

#include <cstdint>
#include <cstring>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "service/http2/batch_session.h"
#include "service/http2/grpc_wire.h"

namespace statehouse {

class BatchClient final {
 public:
  using Fields = std::vector<std::pair<std::string, std::string>>;
  struct Stream {
    std::string to_send;
    bool sends_end = false;
    std::string received;
    std::map<std::string, std::string> fields;  // Of headers and trailers.
    bool is_closed = false;
    uint32_t error_code = 0;
    // The next whole message, without its prefix; false: it is not there.
    bool Next(std::string* message) {
      if (received.size() < 5) return false;
      size_t length = 0;
      for (int i = 1; i < 5; ++i) length = length << 8 | static_cast<uint8_t>(received[i]);
      if (received.size() < 5 + length) return false;
      *message = received.substr(5, length);
      received.erase(0, 5 + length);
      return true;
    }
    int Code() const {
      const auto found = fields.find("grpc-status");
      return found == fields.end() ? -1 : std::stoi(found->second);
    }
  };

  explicit BatchClient(std::vector<nghttp2_settings_entry> settings = {
                           {kBatchesSetting, kBatchesSettingValue}}) {
    nghttp2_session_callbacks* callbacks = nullptr;
    EXPECT_EQ(nghttp2_session_callbacks_new(&callbacks), 0);
    nghttp2_session_callbacks_set_on_data_chunk_recv_callback(callbacks, OnData);
    nghttp2_session_callbacks_set_on_stream_close_callback(callbacks, OnClose);
    nghttp2_session_callbacks_set_on_header_callback(callbacks, OnHeader);
    nghttp2_session_callbacks_set_on_frame_recv_callback(callbacks, OnFrame);
    nghttp2_option* option = nullptr;
    EXPECT_EQ(nghttp2_option_new(&option), 0);
    // It may begin more than the service has said that it may.
    nghttp2_option_set_peer_max_concurrent_streams(option, 1000);
    EXPECT_EQ(nghttp2_session_client_new2(&session_, callbacks, this, option), 0);
    nghttp2_option_del(option);
    nghttp2_session_callbacks_del(callbacks);
    EXPECT_EQ(nghttp2_submit_settings(session_, 0, settings.data(), settings.size()), 0);
  }
  ~BatchClient() { nghttp2_session_del(session_); }
  BatchClient(const BatchClient&) = delete;
  BatchClient& operator=(const BatchClient&) = delete;

  // The fields of a stream of batches; of them those of `with` stand instead or behind.
  static Fields Request(const std::string& token, const Fields& with = {}) {
    Fields fields = {{":method", "POST"},
                     {":scheme", "http"},
                     {":path", "/statehouse.v1.Batches/RunBatches"},
                     {":authority", "statehouse"},
                     {"te", "trailers"},
                     {"content-type", "application/grpc"}};
    if (!token.empty()) fields.emplace_back("authorization", "Bearer " + token);
    for (const auto& [name, value] : with) {
      bool is_new = true;
      for (auto& field : fields) {
        if (field.first != name || name == "authorization") continue;
        field.second = value;
        is_new = false;
      }
      if (is_new) fields.emplace_back(name, value);
    }
    return fields;
  }
  // Its number.
  int32_t Open(const Fields& fields) {
    auto stream = std::make_unique<Stream>();
    std::vector<nghttp2_nv> all;
    for (const auto& [name, value] : fields) {
      const auto bytes = [](const std::string& text) {
        return reinterpret_cast<uint8_t*>(const_cast<char*>(text.data()));
      };
      all.push_back({bytes(name), bytes(value), name.size(), value.size(), 0});
    }
    nghttp2_data_provider provider{};
    provider.source.ptr = stream.get();
    provider.read_callback = OnRoom;
    const int32_t id =
        nghttp2_submit_request(session_, nullptr, all.data(), all.size(), &provider, stream.get());
    EXPECT_GT(id, 0);
    streams_[id] = std::move(stream);
    return id;
  }
  Stream& At(int32_t id) { return *streams_.at(id); }
  static std::string Framed(std::string_view message, char is_compressed = 0) {
    std::string framed(1, is_compressed);
    for (int shift = 24; shift >= 0; shift -= 8) {
      framed.push_back(static_cast<char>(message.size() >> shift));
    }
    return framed.append(message);
  }
  void Send(int32_t id, std::string_view bytes, bool ends = false) {
    At(id).to_send += bytes;
    At(id).sends_end = ends;
    (void)nghttp2_session_resume_data(session_, id);
  }
  void SendMessage(int32_t id, std::string_view message) { Send(id, Framed(message)); }
  void Reset(int32_t id) { nghttp2_submit_rst_stream(session_, 0, id, NGHTTP2_CANCEL); }

  std::string TakeOutput() {
    std::string output;
    const uint8_t* bytes = nullptr;
    for (ssize_t count = 0; (count = nghttp2_session_mem_send(session_, &bytes)) > 0;) {
      output.append(reinterpret_cast<const char*>(bytes), static_cast<size_t>(count));
    }
    return output;
  }
  void Receive(std::string_view bytes) {
    EXPECT_EQ(nghttp2_session_mem_recv(session_, reinterpret_cast<const uint8_t*>(bytes.data()),
                                       bytes.size()),
              static_cast<ssize_t>(bytes.size()));
  }
  bool was_told_to_go() const { return was_told_to_go_; }
  uint32_t goaway_code() const { return goaway_code_; }

 private:
  static BatchClient* Self(void* user) { return static_cast<BatchClient*>(user); }
  static Stream* Find(void* user, int32_t id) {
    const auto found = Self(user)->streams_.find(id);
    return found == Self(user)->streams_.end() ? nullptr : found->second.get();
  }
  static ssize_t OnRoom(nghttp2_session*, int32_t, uint8_t* room, size_t room_bytes,
                        uint32_t* flags, nghttp2_data_source* source, void*) {
    auto* const stream = static_cast<Stream*>(source->ptr);
    const size_t bytes = std::min(room_bytes, stream->to_send.size());
    std::memcpy(room, stream->to_send.data(), bytes);
    stream->to_send.erase(0, bytes);
    if (stream->to_send.empty() && stream->sends_end) *flags |= NGHTTP2_DATA_FLAG_EOF;
    if (bytes == 0 && !stream->sends_end) return NGHTTP2_ERR_DEFERRED;
    return static_cast<ssize_t>(bytes);
  }
  static int OnData(nghttp2_session*, uint8_t, int32_t id, const uint8_t* data, size_t bytes,
                    void* user) {
    if (Stream* const stream = Find(user, id)) {
      stream->received.append(reinterpret_cast<const char*>(data), bytes);
    }
    return 0;
  }
  static int OnClose(nghttp2_session*, int32_t id, uint32_t code, void* user) {
    if (Stream* const stream = Find(user, id)) {
      stream->is_closed = true;
      stream->error_code = code;
    }
    return 0;
  }
  static int OnHeader(nghttp2_session*, const nghttp2_frame* frame, const uint8_t* name,
                      size_t name_bytes, const uint8_t* value, size_t value_bytes, uint8_t,
                      void* user) {
    if (Stream* const stream = Find(user, frame->hd.stream_id)) {
      stream->fields[{reinterpret_cast<const char*>(name), name_bytes}] = {
          reinterpret_cast<const char*>(value), value_bytes};
    }
    return 0;
  }
  static int OnFrame(nghttp2_session*, const nghttp2_frame* frame, void* user) {
    if (frame->hd.type != NGHTTP2_GOAWAY) return 0;
    Self(user)->was_told_to_go_ = true;
    Self(user)->goaway_code_ = frame->goaway.error_code;
    return 0;
  }

  nghttp2_session* session_ = nullptr;
  std::map<int32_t, std::unique_ptr<Stream>> streams_;
  bool was_told_to_go_ = false;
  uint32_t goaway_code_ = 0;
};

}  // namespace statehouse
