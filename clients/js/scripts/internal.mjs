// Properties that neither an application, nor the wire, nor the platform knows: the build of the one file shortens
// them. A name belongs here only if nothing reads it by a string. The tests run against the built file too.
export const INTERNAL = `
  answered answers apply askedMs backlog batch books broken buffers cleared columns complete connectTo count counters
  covering covers current defaultMs define defined drop empty events fail finish forget gap gone
  greet handle hintMs inexact ingest kind leastMs lengths listen lists look live lost maybeBad mirror most newEpoch nth
  oldestMs onEnd options outbox packet parts plan post probe purge pushRaw rank recovering report result retryUnknown
  rows sent setStates settings shown sides sign Socket spent stage stateOf states statesDirty stem subscription
  symbolsMax take target tell token top use users waiting wanted welcomed whole wide
`
  .trim()
  .split(/\s+/);
