romulus_fuzz(replica_session_fuzzer SEEDS codec_fuzz_seeds
  SOURCES ${CMAKE_CURRENT_LIST_DIR}/replica_session_fuzzer.cc
  DEPS romulus_replica romulus_codec romulus_epoch romulus_proto)
