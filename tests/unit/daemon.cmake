romulus_test(daemon_config_test LABEL unit SOURCES ${CMAKE_CURRENT_LIST_DIR}/daemon_config_test.cc
             DEPS romulus_daemon_base)
target_compile_definitions(daemon_config_test PRIVATE ROMULUS_SOURCE_DIR="${PROJECT_SOURCE_DIR}")
romulus_test(daemon_parts_test LABEL unit
             SOURCES ${CMAKE_CURRENT_LIST_DIR}/daemon_console_test.cc
                     ${CMAKE_CURRENT_LIST_DIR}/daemon_console_queue_test.cc
                     ${CMAKE_CURRENT_LIST_DIR}/daemon_control_test.cc
                     ${CMAKE_CURRENT_LIST_DIR}/daemon_field_text_test.cc
                     ${CMAKE_CURRENT_LIST_DIR}/daemon_log_test.cc
             DEPS romulus_ctl)
romulus_test(daemon_events_test LABEL unit
             SOURCES ${CMAKE_CURRENT_LIST_DIR}/daemon_events_test.cc
                     ${CMAKE_CURRENT_LIST_DIR}/daemon_report_test.cc
             DEPS romulus_ctl)
romulus_test(daemon_arbiter_config_test LABEL unit
             SOURCES ${CMAKE_CURRENT_LIST_DIR}/daemon_arbiter_config_test.cc
                     ${CMAKE_CURRENT_LIST_DIR}/daemon_host_identity_test.cc
             DEPS romulus_daemon_base)
romulus_test(daemon_hello_test LABEL unit
             SOURCES ${CMAKE_CURRENT_LIST_DIR}/daemon_hello_test.cc
             DEPS romulus_daemon)
romulus_test(daemon_disks_test LABEL unit SOURCES ${CMAKE_CURRENT_LIST_DIR}/daemon_disks_test.cc
             DEPS romulus_daemon_base romulus_disk)
romulus_test(daemon_stamps_test LABEL unit
             SOURCES ${CMAKE_CURRENT_LIST_DIR}/daemon_disk_stamps_test.cc
             DEPS romulus_daemon)
romulus_test(daemon_tls_config_test LABEL unit
             SOURCES ${CMAKE_CURRENT_LIST_DIR}/daemon_tls_config_test.cc
             DEPS romulus_daemon_base romulus_wire)
target_compile_definitions(daemon_tls_config_test PRIVATE ROMULUS_SOURCE_DIR="${PROJECT_SOURCE_DIR}")
romulus_test(daemon_service_test LABEL unit
             SOURCES ${CMAKE_CURRENT_LIST_DIR}/daemon_progress_test.cc
                     ${CMAKE_CURRENT_LIST_DIR}/daemon_service_manager_test.cc
                     ${CMAKE_CURRENT_LIST_DIR}/daemon_syscall_filter_test.cc
             DEPS romulus_daemon_base)
