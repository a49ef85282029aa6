package lab;

import alluxio.conf.AlluxioConfiguration;
import alluxio.conf.PropertyKey;

import java.io.IOException;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.Paths;
import java.time.LocalDateTime;
import java.time.format.DateTimeFormatter;
import java.util.Map;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;

/**
 * The two files that every end of a worker leaves in the folder of its logs, under the names that
 * upstream's {@code ProcessUtils.dumpInformationOnExit} gives them.
 */
final class ExitInformation {
  private static final Logger LOG = LoggerFactory.getLogger(ExitInformation.class);
  private static boolean sWritten;

  private ExitInformation() {}

  static synchronized void write(AlluxioConfiguration conf) {
    if (sWritten || !conf.getBoolean(PropertyKey.EXIT_COLLECT_INFO)) {
      return;
    }
    sWritten = true;
    LOG.info("Logging metrics and jstack on WORKER exit...");
    Path logs = Paths.get(conf.getString(PropertyKey.LOGS_DIR));
    String now = DateTimeFormatter.ofPattern("yyyyMMdd-HHmmss").format(LocalDateTime.now());
    StringBuilder stacks = new StringBuilder("Process Thread Dump: Dumping all threads in process\n");
    for (Map.Entry<Thread, StackTraceElement[]> thread : Thread.getAllStackTraces().entrySet()) {
      stacks.append(thread.getKey()).append('\n');
      for (StackTraceElement frame : thread.getValue()) {
        stacks.append("    ").append(frame).append('\n');
      }
    }
    put(logs.resolve("alluxio-worker-exit-metrics-" + now + ".json"), Endpoints.METRICS_JSON);
    put(logs.resolve("alluxio-worker-exit-stacks-" + now + ".txt"), stacks.toString());
  }

  private static void put(Path file, String content) {
    try {
      Files.write(file, content.getBytes(StandardCharsets.UTF_8));
    } catch (IOException e) {
      LOG.error("Failed to persist {}", file, e);
    }
  }
}
