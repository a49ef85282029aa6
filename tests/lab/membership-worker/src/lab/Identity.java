package lab;

import alluxio.conf.AlluxioConfiguration;
import alluxio.conf.PropertyKey;
import alluxio.wire.WorkerIdentity;

import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.NoSuchFileException;
import java.nio.file.Path;
import java.nio.file.Paths;
import java.nio.file.StandardOpenOption;
import java.nio.file.attribute.PosixFilePermissions;
import java.time.OffsetDateTime;
import java.util.Arrays;
import java.util.Optional;
import java.util.UUID;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;

/**
 * Who this worker is, in the order that Alluxio's own worker has it (its class is not among the
 * published jars): the property, else the identity file, else a new one, kept in that file.
 */
final class Identity {
  private static final Logger LOG = LoggerFactory.getLogger(Identity.class);

  private Identity() {}

  static WorkerIdentity resolve(AlluxioConfiguration conf) throws IOException {
    if (conf.isSetByUser(PropertyKey.WORKER_IDENTITY_UUID)) {
      return of(conf.getString(PropertyKey.WORKER_IDENTITY_UUID));
    }
    Path file = Paths.get(conf.getString(PropertyKey.WORKER_IDENTITY_UUID_FILE_PATH));
    Optional<String> kept = read(file);
    if (kept.isPresent()) {
      return of(kept.get());
    }
    String uuid = UUID.randomUUID().toString();
    write(file, uuid);
    return of(uuid);
  }

  private static WorkerIdentity of(String uuid) {
    return WorkerIdentity.ParserV1.INSTANCE.fromUUID(uuid);
  }

  /** The first line that is neither blank nor a comment. An unreadable file is an error. */
  private static Optional<String> read(Path file) throws IOException {
    try {
      return Files.readAllLines(file).stream()
          .filter(line -> !line.startsWith("#") && !line.trim().isEmpty())
          .findFirst();
    } catch (NoSuchFileException e) {
      return Optional.empty();
    }
  }

  /** Alluxio's worker goes on without the file, too, and has another identity next time. */
  private static void write(Path file, String uuid) {
    try {
      Files.write(file,
          Arrays.asList("# Worker identity made at " + OffsetDateTime.now(), uuid),
          StandardOpenOption.CREATE_NEW);
      Files.setPosixFilePermissions(file, PosixFilePermissions.fromString("r--r--r--"));
    } catch (IOException e) {
      LOG.warn("Cannot keep worker identity {} in {}: it is lost at the next start", uuid, file, e);
    }
  }
}
