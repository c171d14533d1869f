// The quickstart's second program: another language than the application, over TCP, with nothing
// but the stubs that protoc makes from proto/. It prints the two totals that the area "quickstart"
// holds: hits, and the sum over the workers' slots.
//
//   quickstart_reader HOST:PORT        the access token comes in STATEHOUSE_TOKEN
#include <grpcpp/grpcpp.h>

#include <chrono>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <iostream>
#include <memory>
#include <string>

#include "statehouse/v1/area.grpc.pb.h"

namespace {

using statehouse::v1::Areas;

void Prepare(grpc::ClientContext* context, const std::string& token) {
  context->AddMetadata("authorization", "Bearer " + token);
  context->set_wait_for_ready(true);
  context->set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(10));
}

bool Report(const char* call, const grpc::Status& status) {
  if (status.ok()) return true;
  std::cerr << call << ": " << status.error_message() << " (code " << status.error_code() << ")\n";
  return false;
}

bool ReadHits(Areas::Stub* stub, const std::string& token, uint64_t* hits) {
  grpc::ClientContext context;
  Prepare(&context, token);
  statehouse::v1::LoadWordRequest request;
  request.set_name("quickstart");
  request.set_type(statehouse::v1::WORD_TYPE_U64);
  statehouse::v1::LoadWordResponse response;
  if (!Report("LoadWord", stub->LoadWord(&context, request, &response))) return false;
  *hits = response.value().unsigned_value();
  return true;
}

bool SumSlots(Areas::Stub* stub, const std::string& token, uint64_t* sum) {
  grpc::ClientContext context;
  Prepare(&context, token);
  statehouse::v1::ReadAreaRequest request;
  request.set_name("quickstart");
  request.set_pos(64);
  statehouse::v1::ReadAreaResponse response;
  if (!Report("ReadArea", stub->ReadArea(&context, request, &response))) return false;
  *sum = 0;
  for (size_t at = 0; at + sizeof(uint64_t) <= response.data().size(); at += sizeof(uint64_t)) {
    uint64_t word = 0;
    std::memcpy(&word, response.data().data() + at, sizeof word);
    *sum += word >> 32;
  }
  return true;
}

}  // namespace

int main(int argc, char** argv) {
  const char* token = std::getenv("STATEHOUSE_TOKEN");
  if (argc != 2 || token == nullptr) {
    std::cerr << "usage: STATEHOUSE_TOKEN=… quickstart_reader HOST:PORT\n";
    return 2;
  }
  const auto channel = grpc::CreateChannel(argv[1], grpc::InsecureChannelCredentials());
  const std::unique_ptr<Areas::Stub> stub = Areas::NewStub(channel);
  uint64_t hits = 0;
  uint64_t sum = 0;
  if (!ReadHits(stub.get(), token, &hits) || !SumSlots(stub.get(), token, &sum)) return 1;
  std::cout << hits << " " << sum << "\n";
  return 0;
}
