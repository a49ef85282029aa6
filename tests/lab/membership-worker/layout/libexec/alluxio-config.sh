# shellcheck shell=bash
# Sourced by the scripts of bin/: where things are, conf/alluxio-env.sh, Java and its options.

ALLUXIO_HOME=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
ALLUXIO_CONF_DIR=${ALLUXIO_CONF_DIR:-$ALLUXIO_HOME/conf}
ALLUXIO_LOGS_DIR=${ALLUXIO_LOGS_DIR:-$ALLUXIO_HOME/logs}
if [[ -e $ALLUXIO_CONF_DIR/alluxio-env.sh ]]; then
  source "$ALLUXIO_CONF_DIR/alluxio-env.sh"
fi
ALLUXIO_USER_LOGS_DIR=${ALLUXIO_USER_LOGS_DIR:-$ALLUXIO_LOGS_DIR/user}

if [[ -z ${JAVA:-} ]]; then
  if [[ -n ${JAVA_HOME:-} && -x $JAVA_HOME/bin/java ]]; then
    JAVA=$JAVA_HOME/bin/java
  elif ! JAVA=$(type -P java); then
    echo "Error: Cannot find 'java' on path or under \$JAVA_HOME/bin/." >&2
    exit 1
  fi
fi
java_version=$("$JAVA" -version 2>&1 | sed -n 's/.*version "\([^"]*\)".*/\1/p')
case $java_version in
  1.8.* | 11 | 11.* | 17 | 17.*) ;;
  *)
    echo "Error: this lab build of Alluxio requires Java 8, 11 or 17, currently Java $java_version found." >&2
    exit 1
    ;;
esac

ALLUXIO_JAVA_OPTS+=" -Dalluxio.home=$ALLUXIO_HOME -Dalluxio.conf.dir=$ALLUXIO_CONF_DIR"
ALLUXIO_JAVA_OPTS+=" -Dalluxio.logs.dir=$ALLUXIO_LOGS_DIR -Dalluxio.user.logs.dir=$ALLUXIO_USER_LOGS_DIR"
ALLUXIO_JAVA_OPTS+=" -Dlog4j.configuration=file:$ALLUXIO_CONF_DIR/log4j.properties"
ALLUXIO_JAVA_OPTS+=" -Djava.net.preferIPv4Stack=true"
ALLUXIO_WORKER_JAVA_OPTS+=" $ALLUXIO_JAVA_OPTS -Dalluxio.logger.type=${ALLUXIO_WORKER_LOGGER:-WORKER_LOGGER}"
ALLUXIO_USER_JAVA_OPTS+=" $ALLUXIO_JAVA_OPTS -Dalluxio.logger.type=USER_LOGGER"
ALLUXIO_CLASSPATH="$ALLUXIO_CONF_DIR:$ALLUXIO_HOME/lib/*${ALLUXIO_CLASSPATH:+:$ALLUXIO_CLASSPATH}"
